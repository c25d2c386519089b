#include "runtime/nn/forward_program.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "runtime/formats/onnx/import.h"
#include "runtime/nn/model_list.h"

namespace lepton::nn {

Status CheckLogits(const Signature& signature, const Batch& batch, std::span<const float> logits) {
  const int64_t wanted = Predictions(signature, batch) * signature.outputs;
  if (logits.size() == static_cast<size_t>(wanted)) return Status::Ok();
  return InvalidArgument("logits: has room for " + std::to_string(logits.size()) +
                         " numbers; must have " + std::to_string(wanted));
}

std::vector<graph::ValueId> AddInputs(graph::Graph& graph, const Signature& signature) {
  std::vector<graph::ValueId> inputs;
  for (const InputSpec& input : signature.inputs) {
    inputs.push_back(graph.AddInput(input.name, input.type));
  }
  return inputs;
}

Status CheckMemory(const std::string& what, int64_t bytes) {
  const int64_t memory = int64_t{::sysconf(_SC_PHYS_PAGES)} * ::sysconf(_SC_PAGESIZE);
  if (memory <= 0 || bytes <= memory) return Status::Ok();
  const auto gib = [](int64_t count) { return std::to_string((count >> 30) + 1) + " GiB"; };
  return ResourceExhausted("model: " + what + " need " + gib(bytes) + "; this machine has " +
                           gib(memory));
}

Status CheckPrecision(const std::string& precision) {
  if (precision == "f32" || precision == "bf16") return Status::Ok();
  return InvalidArgument("precision: '" + precision + "' is unknown: must be f32 or bf16");
}

ForwardProgram::ForwardProgram(const Signature& signature, const std::string& precision)
    : signature_(signature),
      graph_(onnx::ImportOps()),
      builder_(graph_, /*training=*/false, precision),
      executor_(graph_, onnx::ImportKernels(), {}, {.frozen_parameters = true}) {}

Result<std::unique_ptr<ForwardProgram>> ForwardProgram::Build(const Signature& signature,
                                                              const spec::ModelSpec& model,
                                                              const std::string& precision) {
  LEPTON_RETURN_IF_ERROR(CheckPrecision(precision));
  std::unique_ptr<ForwardProgram> program(new ForwardProgram(signature, precision));
  program->inputs_ = AddInputs(program->graph_, signature);
  LEPTON_ASSIGN_OR_RETURN(program->logits_,
                          BuildModel(program->builder_, signature, model, program->inputs_));
  LEPTON_RETURN_IF_ERROR(program->graph_.AddOutput(program->logits_, /*external=*/true));
  program->padded_inputs_.resize(signature.inputs.size());
  return program;
}

void ForwardProgram::Bind(std::span<const float> weights) {
  std::vector<const float*> parts;
  for (const auto& parameter : parameters()) {
    parts.push_back(weights.data() + parameter.view.offset);
  }
  Bind(std::move(parts));
}

int64_t ForwardProgram::BlockRows(const Batch& batch) {
  constexpr int64_t kMost = 16;
  constexpr int64_t kTokens = 64;       // of a block of texts
  constexpr int64_t kPixels = 1 << 14;  // of a block of pictures
  const Shape& row = batch.inputs.front().type.shape;
  const int64_t size = row.elements() / std::max<int64_t>(1, row[0]);
  if (batch.inputs.front().type.dtype == DType::kI32) {
    return std::clamp<int64_t>(kTokens / std::max<int64_t>(1, size), 1, kMost);
  }
  if (row.rank() < 4) return kMost;
  return std::clamp<int64_t>(kPixels / std::max<int64_t>(1, size), 1, kMost);
}

Result<graph::Plan*> ForwardProgram::PlanFor(const Batch& batch) {
  std::vector<TensorType> types = batch.types();
  for (size_t i = 0; i < types.size(); ++i) {
    std::vector<int64_t> extents = types[i].shape.extents();
    extents[0] = BlockRows(batch);
    types[i].shape = Shape(std::move(extents));
  }
  bool made = false;
  LEPTON_ASSIGN_OR_RETURN(graph::Plan* const plan, executor_.PlanFor(types, &made));
  uint64_t& binding = bindings_[plan];
  if (made || binding != binding_) {
    for (size_t i = 0; i < bound_.size(); ++i) {
      // Kernels read parameters through the same untyped pointers that they write outputs through.
      plan->Bind(parameters()[i].value, const_cast<float*>(bound_[i]));
    }
    binding = binding_;
  }
  plan->RunPrologue({}, version_);
  return plan;
}

void ForwardProgram::RunBlock(graph::Plan& plan, float* logits) {
  plan.Bind(logits_, logits);
  plan.Run({});
}

Status ForwardProgram::Forward(const Batch& batch, std::span<float> logits) {
  LEPTON_RETURN_IF_ERROR(CheckBatch(signature_, batch));
  LEPTON_RETURN_IF_ERROR(CheckLogits(signature_, batch, logits));
  LEPTON_ASSIGN_OR_RETURN(graph::Plan* const plan, PlanFor(batch));
  const int64_t rows = batch.rows();
  const int64_t block = BlockRows(batch);
  const int64_t row_logits = static_cast<int64_t>(logits.size()) / rows;
  const auto input_row = [&](size_t i, int64_t row) {
    return static_cast<char*>(batch.inputs[i].data) + row * (batch.inputs[i].type.bytes() / rows);
  };
  int64_t row = 0;
  for (; row + block <= rows; row += block) {
    for (size_t i = 0; i < inputs_.size(); ++i) plan->Bind(inputs_[i], input_row(i, row));
    RunBlock(*plan, logits.data() + row * row_logits);
  }
  if (row == rows) return Status::Ok();
  // Rows beyond the batch keep what they held: finite or not, no row reads another.
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const size_t row_bytes = batch.inputs[i].type.bytes() / rows;
    if (padded_inputs_[i].size() < block * row_bytes) {
      padded_inputs_[i] = Buffer(block * row_bytes);
    }
    std::memcpy(padded_inputs_[i].data(), input_row(i, row), (rows - row) * row_bytes);
    plan->Bind(inputs_[i], padded_inputs_[i].data());
  }
  if (padded_logits_.size() < block * row_logits * sizeof(float)) {
    padded_logits_ = Buffer(block * row_logits * sizeof(float));
  }
  RunBlock(*plan, padded_logits_.as<float>());
  std::memcpy(logits.data() + row * row_logits, padded_logits_.data(),
              (rows - row) * row_logits * sizeof(float));
  return Status::Ok();
}

}  // namespace lepton::nn
