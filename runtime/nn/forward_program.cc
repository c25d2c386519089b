#include "runtime/nn/forward_program.h"

#include <algorithm>
#include <cstring>

#include "runtime/kernels/kernel_list_cpu.h"
#include "runtime/nn/model_list.h"
#include "runtime/ops/op_list.h"

namespace lepton::nn {

Status CheckRows(const Signature& signature, int64_t batch, std::span<const float> x) {
  if (batch < 1) return InvalidArgument("batch: must be at least 1");
  if (x.size() == static_cast<size_t>(batch * signature.features)) return Status::Ok();
  return InvalidArgument("x: has " + std::to_string(x.size()) + " numbers; must have " +
                         std::to_string(batch) + " rows of " + std::to_string(signature.features));
}

Status CheckPrecision(const std::string& precision) {
  if (precision == "f32" || precision == "bf16") return Status::Ok();
  return InvalidArgument("precision: '" + precision + "' is unknown: must be f32 or bf16");
}

ForwardProgram::ForwardProgram(const Signature& signature, const std::string& precision)
    : signature_(signature),
      graph_(ops::OpList()),
      builder_(graph_, /*training=*/false, precision),
      executor_(graph_, kernels::CpuKernels(), {}, {.frozen_parameters = true}) {}

Result<std::unique_ptr<ForwardProgram>> ForwardProgram::Build(const Signature& signature,
                                                              const spec::ModelSpec& model,
                                                              const std::string& precision) {
  LEPTON_RETURN_IF_ERROR(CheckPrecision(precision));
  std::unique_ptr<ForwardProgram> program(new ForwardProgram(signature, precision));
  program->x_ = program->graph_.AddInput("x", {DType::kF32, {Shape::kBatch, signature.features}});
  LEPTON_ASSIGN_OR_RETURN(program->logits_,
                          BuildModel(program->builder_, signature, model, program->x_));
  LEPTON_RETURN_IF_ERROR(program->graph_.AddOutput(program->logits_, /*external=*/true));
  program->padded_x_ = Buffer(kBlockRows * signature.features * sizeof(float));
  program->padded_logits_ = Buffer(kBlockRows * signature.outputs * sizeof(float));
  return program;
}

Status ForwardProgram::Bind(std::span<float> weights) {
  LEPTON_ASSIGN_OR_RETURN(plan_, executor_.PlanForBatch(kBlockRows));
  for (const auto& parameter : builder_.parameters()) {
    plan_->Bind(parameter.value, weights.data() + parameter.view.offset);
  }
  return Status::Ok();
}

void ForwardProgram::Prepare() {
  plan_->RunPrologue({});
}

void ForwardProgram::RunBlock(const float* x, float* logits) {
  plan_->Bind(x_, const_cast<float*>(x));  // kernels only read their inputs
  plan_->Bind(logits_, logits);
  plan_->Run({});
}

Status ForwardProgram::Forward(int64_t batch, std::span<const float> x, std::span<float> logits) {
  LEPTON_RETURN_IF_ERROR(CheckRows(signature_, batch, x));
  if (logits.size() != static_cast<size_t>(batch * signature_.outputs)) {
    return InvalidArgument("logits: has room for " + std::to_string(logits.size()) +
                           " numbers; must have " + std::to_string(batch * signature_.outputs));
  }
  int64_t row = 0;
  for (; row + kBlockRows <= batch; row += kBlockRows) {
    RunBlock(x.data() + row * signature_.features, logits.data() + row * signature_.outputs);
  }
  if (row == batch) return Status::Ok();
  const size_t rest = batch - row;
  // Rows beyond the batch keep what they held: finite or not, no row reads another.
  std::memcpy(padded_x_.data(), x.data() + row * signature_.features,
              rest * signature_.features * sizeof(float));
  RunBlock(padded_x_.as<float>(), padded_logits_.as<float>());
  std::memcpy(logits.data() + row * signature_.outputs, padded_logits_.data(),
              rest * signature_.outputs * sizeof(float));
  return Status::Ok();
}

}  // namespace lepton::nn
