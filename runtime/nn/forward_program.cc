#include "runtime/nn/forward_program.h"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "runtime/base/logging.h"
#include "runtime/base/thread_pool.h"
#include "runtime/formats/onnx/import.h"
#include "runtime/graph/passes/loss_pieces.h"
#include "runtime/nn/graph_decoding.h"
#include "runtime/nn/int8_products.h"
#include "runtime/nn/model_list.h"
#include "runtime/nn/row_blocks.h"

namespace lepton::nn {

namespace {

// Elements of the first input in each row.
int64_t RowElements(const Batch& batch) {
  const Shape& shape = batch.inputs.front().type.shape;
  return std::max<int64_t>(1, shape.elements() / std::max<int64_t>(1, shape[0]));
}

bool OfTokens(const Batch& batch) {
  return batch.inputs.front().type.dtype == DType::kI32;
}

bool OfFeatures(const Batch& batch) {
  return !OfTokens(batch) && batch.inputs.front().type.shape.rank() < 4;
}

// Rows of the largest block: enough for the products to run at speed.
int64_t MostRows(const Batch& batch) {
  constexpr int64_t kFeatures = 256;
  constexpr int64_t kTokens = 4096;
  constexpr int64_t kPixels = 1 << 18;
  if (OfFeatures(batch)) return kFeatures;
  int64_t most = (OfTokens(batch) ? kTokens : kPixels) / RowElements(batch);
  // Some kernels give each thread images of its own.
  if (!OfTokens(batch)) most = std::max<int64_t>(most, ThreadPool::Compute().threads());
  return static_cast<int64_t>(
      std::bit_floor(static_cast<uint64_t>(std::clamp<int64_t>(most, 1, kFeatures))));
}

// `visited`: weights come from other ranks. Reading weights from memory takes as long as
// multiplying with some ten rows, with AMX forty; packing them, where packs are not kept, as much
// again.
RowCosts CostsOf(const Batch& batch, bool on_device, bool visited) {
  constexpr int64_t kHost = 64, kDevice = 2048, kVisited = int64_t{1} << 40;
  RowCosts costs;
  costs.block = visited ? kVisited : on_device ? kDevice : kHost;
  if (!OfFeatures(batch)) {
    const Shape& shape = batch.inputs.front().type.shape;
    costs.row = RowElements(batch) / (OfTokens(batch) ? 1 : std::max<int64_t>(1, shape[1]));
  }
  return costs;
}

// Plans are kept for so many sizes of batches and lengths of texts. On a device each has memory of
// its own, small without gradients.
size_t MostPlans(bool on_device) {
  return on_device ? 16 : 64;
}

Buffer& Grown(Buffer& buffer, size_t bytes) {
  if (buffer.size() < bytes) buffer = Buffer(bytes);
  return buffer;
}

}  // namespace

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

Status CheckInferencePrecision(const std::string& precision) {
  if (precision == "int8" || CheckPrecision(precision).ok()) return Status::Ok();
  return InvalidArgument("precision: '" + precision + "' is unknown: must be f32, bf16 or int8");
}

const graph::KernelTable& KernelsOf(const kernels::DeviceBackend* backend) {
  return backend == nullptr ? onnx::ImportKernels() : backend->kernels();
}

graph::PlanOptions PlanOptionsOf(kernels::DeviceBackend* backend, bool transient_packs) {
  return {.frozen_parameters = true, .transient_packs = transient_packs, .accelerator = backend};
}

ForwardProgram::ForwardProgram(const Signature& signature, const std::string& precision,
                               kernels::DeviceBackend* backend, bool transient_packs,
                               TensorPlace tensor, std::shared_ptr<graph::Arena> arena)
    : signature_(signature),
      graph_(onnx::ImportOps()),
      builder_(graph_, /*training=*/false, precision, tensor),
      executor_(graph_, KernelsOf(backend), {}, PlanOptionsOf(backend, transient_packs),
                MostPlans(backend != nullptr),
                arena == nullptr ? std::make_shared<graph::Arena>() : std::move(arena)),
      plan_weights_(builder_.parameters()),
      backend_(backend) {}

Result<std::unique_ptr<ForwardProgram>> ForwardProgram::Build(
    const Signature& signature, const spec::ModelSpec& model, const std::string& precision,
    kernels::DeviceBackend* backend, bool transient_packs, TensorPlace tensor,
    std::shared_ptr<graph::Arena> arena) {
  LEPTON_RETURN_IF_ERROR(CheckInferencePrecision(precision));
  if (precision == "int8" && backend != nullptr) {
    return InvalidArgument("precision: int8 is computed on the CPU only; use bf16 or f32 on " +
                           DeviceName(backend->device()));
  }
  std::unique_ptr<ForwardProgram> program(
      new ForwardProgram(signature, precision, backend, transient_packs, tensor, std::move(arena)));
  program->inputs_ = AddInputs(program->graph_, signature);
  LEPTON_ASSIGN_OR_RETURN(program->logits_,
                          BuildModel(program->builder_, signature, model, program->inputs_));
  if (precision == "int8" && model.arch == "onnx") {
    LEPTON_ASSIGN_OR_RETURN(const int products, QuantizeProducts(program->graph_));
    if (products == 0) {
      return InvalidArgument(
          "precision: int8: this ONNX model has no product or convolution with weights of f32 to "
          "be quantised; use precision: model");
    }
  }
  LOG_IF(WARNING, precision == "bf16" && model.arch == "onnx")
      << "precision: bf16: a model that came as ONNX computes in f32 all the same";
  program->executor_.packs().Share(PackNames(program->graph_, program->parameters()));
  if (signature.per_token && backend == nullptr && !tensor.divided()) {
    program->pieces_ =
        HeadPieces::Make(program->graph_, program->logits_, program->parameters(),
                         PlanOptionsOf(nullptr, transient_packs), program->executor_);
  }
  LEPTON_RETURN_IF_ERROR(program->graph_.AddOutput(program->logits_, /*external=*/true));
  program->padded_inputs_.resize(signature.inputs.size());
  return program;
}

std::shared_ptr<StoredWeights> ForwardProgram::FlatWeights(const float* weights) const {
  std::vector<const float*> places;
  for (const auto& parameter : parameters()) places.push_back(weights + parameter.view.offset);
  return std::make_shared<StoredWeights>(places);
}

void ForwardProgram::Bind(std::shared_ptr<StoredWeights> weights) {
  bound_ = std::move(weights);
  in_place_ = backend_ == nullptr;
  copied_version_ = 0;
  if (in_place_) plan_weights_.Bind(bound_);
}

void ForwardProgram::BindInPlace(const float* weights) {
  bound_ = FlatWeights(weights);
  in_place_ = true;
  plan_weights_.Bind(bound_);
}

void ForwardProgram::Visit(WeightVisits* visits, std::function<const float*(size_t)> statistic) {
  visits_ = visits;
  statistic_ = std::move(statistic);
  parameter_of_.assign(graph_.values().size(), 0);
  for (size_t i = 0; i < parameters().size(); ++i) {
    parameter_of_[static_cast<size_t>(parameters()[i].value)] = i;
  }
}

// The trained ones.
std::span<const size_t> ForwardProgram::Needed(std::span<const graph::ValueId> values) {
  needed_.clear();
  for (const graph::ValueId value : values) {
    const size_t parameter = parameter_of_[static_cast<size_t>(value)];
    if (!parameters()[parameter].view.statistic) needed_.push_back(parameter);
  }
  return needed_;
}

void ForwardProgram::Foresee(const graph::Plan& plan) {
  visits_->Begin([&](const WeightVisits::Step& step) {
    plan.Walk([&](auto values) {
      step(Needed(values));
      return true;
    });
  });
}

bool ForwardProgram::BindNeeded(graph::Plan& plan, std::span<const graph::ValueId> values) {
  if (!visits_->Need(Needed(values))) return false;
  for (const graph::ValueId value : values) {
    const size_t i = parameter_of_[static_cast<size_t>(value)];
    plan.Bind(value, parameters()[i].view.statistic ? const_cast<float*>(statistic_(i))
                                                    : visits_->place(i));
  }
  return true;
}

Status ForwardProgram::PassThrough() {
  graph::Plan* plan = executor_.Latest();
  if (plan == nullptr) {
    LEPTON_ASSIGN_OR_RETURN(plan, executor_.PlanFor(EmptyRow(signature_).types()));
  }
  Foresee(*plan);
  plan->Walk([&](auto values) { return BindNeeded(*plan, values); });
  return visits_->status();
}

// The device's copy of parameters that lie in the host's memory.
Status ForwardProgram::CopyParameters() {
  if (in_place_ || copied_version_ == version_) return Status::Ok();
  const size_t bytes = static_cast<size_t>(parameter_elements()) * sizeof(float);
  if (copied_.size() == 0) {
    LEPTON_ASSIGN_OR_RETURN(copied_, Buffer::On(backend_, bytes));
  }
  for (size_t i = 0; i < bound_->size(); ++i) {
    const auto& view = parameters()[i].view;
    const std::shared_ptr<const float> floats = bound_->Floats(i);
    backend_->CopyIn(copied_.as<float>() + view.offset, floats.get(),
                     static_cast<size_t>(view.size) * sizeof(float));
    LEPTON_RETURN_IF_ERROR(backend_->Synchronize());  // `floats` may go
  }
  plan_weights_.Bind(FlatWeights(copied_.as<float>()));
  copied_version_ = version_;
  return Status::Ok();
}

Result<graph::Plan*> ForwardProgram::PlanFor(graph::Executor& executor, const Batch& batch,
                                             int64_t rows) {
  std::vector<TensorType> types = batch.types();
  for (size_t i = 0; i < types.size(); ++i) {
    std::vector<int64_t> extents = types[i].shape.extents();
    extents[0] = rows;
    types[i].shape = Shape(std::move(extents));
  }
  bool made = false;
  LEPTON_ASSIGN_OR_RETURN(graph::Plan* const plan, executor.PlanFor(types, &made));
  if (visits_ != nullptr) return plan;
  LEPTON_RETURN_IF_ERROR(CopyParameters());
  plan_weights_.Prepare(*plan, made, version_);
  return plan;
}

// All the plan's logits into the host's memory.
Status ForwardProgram::RunAndFetch(graph::Plan& plan, float* logits) {
  if (visits_ != nullptr) {
    if (visits_->source() != nullptr) LEPTON_RETURN_IF_ERROR(visits_->source()->BeginForward());
    Foresee(plan);
    plan.Bind(logits_, logits);
    plan.RunVisiting({}, [&](auto values) { return BindNeeded(plan, values); });
    return visits_->status();
  }
  if (backend_ == nullptr) {
    plan.Bind(logits_, logits);
    plan.Run(run_state_);
    return run_state_.tensor == nullptr ? Status::Ok() : run_state_.tensor->status();
  }
  const size_t bytes = plan.view(logits_).type.bytes();
  if (device_logits_.size() < bytes) {
    LEPTON_ASSIGN_OR_RETURN(device_logits_, Buffer::On(backend_, bytes));
  }
  plan.Bind(logits_, device_logits_.data());
  plan.Run({});
  return plan.Fetch(logits_, logits).WithContext(backend_->description());
}

Status ForwardProgram::FeedRows(graph::Plan& plan, const Batch& batch, int64_t first,
                                int64_t block) {
  const int64_t there = std::min(block, batch.rows() - first);
  for (size_t i = 0; i < inputs_.size(); ++i) {
    const int64_t row_bytes = static_cast<int64_t>(batch.inputs[i].type.bytes()) / batch.rows();
    char* data = static_cast<char*>(batch.inputs[i].data) + first * row_bytes;
    if (there < block) {
      // Rows beyond the batch keep what they held: finite or not, no row reads another.
      data = static_cast<char*>(
          std::memcpy(Grown(padded_inputs_[i], block * row_bytes).data(), data, there * row_bytes));
    }
    LEPTON_RETURN_IF_ERROR(plan.Feed(inputs_[i], data));
  }
  return Status::Ok();
}

// Rows [first, first + block), padded where the batch has fewer.
Status ForwardProgram::RunBlock(const Batch& batch, int64_t first, int64_t block,
                                std::span<float> logits) {
  LEPTON_ASSIGN_OR_RETURN(graph::Plan* const plan, PlanFor(executor_, batch, block));
  const int64_t rows = batch.rows();
  const int64_t there = std::min(block, rows - first);
  const int64_t row_logits = static_cast<int64_t>(logits.size()) / rows;
  float* out = logits.data() + first * row_logits;
  LEPTON_RETURN_IF_ERROR(FeedRows(*plan, batch, first, block));
  Buffer& padded = padded_logits_;
  const size_t bytes = row_logits * sizeof(float);
  LEPTON_RETURN_IF_ERROR(
      RunAndFetch(*plan, there < block ? Grown(padded, block * bytes).as<float>() : out));
  if (there < block) std::memcpy(out, padded.data(), there * bytes);
  return Status::Ok();
}

Status ForwardProgram::Forward(const Batch& batch, std::span<float> logits) {
  LEPTON_RETURN_IF_ERROR(CheckBatch(signature_, batch));
  LEPTON_RETURN_IF_ERROR(CheckLogits(signature_, batch, logits));
  const int64_t most = MostRows(batch);
  const RowCosts costs = CostsOf(batch, backend_ != nullptr, visits_ != nullptr);
  for (int64_t row = 0; row < batch.rows();) {
    const int64_t block = NextBlockRows(batch.rows() - row, most, costs);
    LEPTON_RETURN_IF_ERROR(RunBlock(batch, row, block, logits));
    row += block;
  }
  return Status::Ok();
}

// All hidden states.
Status ForwardProgram::RunBody(const Batch& batch) {
  const int64_t rows = batch.rows();
  const size_t row_bytes = static_cast<size_t>(RowElements(batch)) * pieces_->hidden_bytes();
  const int64_t most = MostRows(batch);
  const RowCosts costs = CostsOf(batch, false, false);
  // The last block may have more rows than there are.
  Grown(hidden_, static_cast<size_t>(rows + most) * row_bytes);
  for (int64_t row = 0; row < rows;) {
    const int64_t block = NextBlockRows(rows - row, most, costs);
    LEPTON_ASSIGN_OR_RETURN(graph::Plan* const plan, PlanFor(pieces_->body(), batch, block));
    LEPTON_RETURN_IF_ERROR(FeedRows(*plan, batch, row, block));
    plan->Bind(pieces_->hidden(), hidden_.as<char>() + static_cast<size_t>(row) * row_bytes);
    plan->Run(run_state_);
    row += block;
  }
  return Status::Ok();
}

Status ForwardProgram::ForwardPieces(const Batch& batch, const TakeLogits& take) {
  LEPTON_RETURN_IF_ERROR(CheckBatch(signature_, batch));
  const int64_t predictions = Predictions(signature_, batch), outputs = signature_.outputs;
  const int64_t piece = std::max<int64_t>(1, graph::kMostLogitsBytes / (outputs * 4));
  if (pieces_ == nullptr || visits_ != nullptr || predictions <= piece) {
    const auto numbers = static_cast<size_t>(predictions * outputs);
    const size_t bytes = numbers * sizeof(float);
    Buffer large;  // too much to keep
    if (bytes > graph::kMostLogitsBytes) large = Buffer(bytes);
    Buffer& whole = bytes > graph::kMostLogitsBytes ? large : Grown(small_logits_, bytes);
    const std::span<float> logits(whole.as<float>(), numbers);
    LEPTON_RETURN_IF_ERROR(Forward(batch, logits));
    return take(0, logits);
  }
  LEPTON_RETURN_IF_ERROR(RunBody(batch));
  for (int64_t first = 0; first < predictions; first += piece) {
    // The last piece has as many tokens, of which some were there before.
    const int64_t begin = std::min(first, predictions - piece);
    const char* hidden = hidden_.as<char>() + static_cast<size_t>(begin) * pieces_->hidden_bytes();
    LEPTON_ASSIGN_OR_RETURN(const std::span<const float> logits,
                            pieces_->Run(hidden, piece, bound_, version_));
    LEPTON_RETURN_IF_ERROR(
        take(first, logits.subspan(static_cast<size_t>((first - begin) * outputs))));
  }
  return Status::Ok();
}

}  // namespace lepton::nn
