#include "runtime/graph/plan.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "runtime/base/logging.h"
#include "runtime/base/progress.h"
#include "runtime/graph/plan_builder.h"

namespace lepton::graph {
namespace {

// Multiplications and additions of the products in a node; 0 where it has none.
double FlopsOf(const Node& node, const KernelContext& context) {
  const std::string_view op = node.op->name();
  const auto elements = [&](const TensorView& view) {
    return static_cast<double>(view.shape().elements());
  };
  if (op == "matmul" || op == "batch_matmul") {
    // Each element of the result is a sum over k: |a| |b| |y| = (m k)(k n)(m n), per leading index.
    const double leading = op == "matmul" ? 1 : static_cast<double>(context.output(0).shape()[0]);
    return 2 * leading *
           std::sqrt(elements(context.input(0)) * elements(context.input(1)) *
                     elements(context.output(0)) / (leading * leading * leading));
  }
  if (op.starts_with("linear_cross_entropy")) {
    const double rows = elements(context.input(2));
    return (op.ends_with("_grad") ? 6 : 2) * rows * elements(context.input(1));
  }
  if (op.starts_with("conv2d")) {
    const bool forward = !op.ends_with("_grad");
    const TensorView& y = forward ? context.output(0) : context.input(0);
    const TensorView& weights = op == "conv2d_weight_grad" ? context.output(0) : context.input(1);
    const double kernel = elements(weights) / static_cast<double>(weights.shape()[0]);
    return 2 * elements(y) * kernel;
  }
  if (op.find("attention") != op.npos) {
    const bool packed = op.rfind("packed_", 0) == 0, gradient = op.ends_with("_grad");
    const TensorView& y = gradient ? context.input(packed ? 1 : 3) : context.output(0);
    const double keys = static_cast<double>(context.input(packed ? 0 : 1).shape()[1]);
    const double seen = node.attributes.Int("causal") != 0 ? 0.5 : 1;
    return (gradient ? 10 : 4) * elements(y) * keys * seen;
  }
  return 0;
}

void SendRunState(const RunState& state, DeviceFeed& feed) {
  const DeviceRunState keys{state.seed, state.step, state.shard};
  feed.Send(&keys);
}

// For times only: errors show where results are fetched.
void WaitFor(Accelerator* accelerator) {
  if (accelerator == nullptr) return;
  const std::unique_ptr<Fence> fence = accelerator->MakeFence();
  fence->Record();
  fence->Wait();
}

}  // namespace

Result<std::unique_ptr<Plan>> Plan::Make(const Graph& graph, const KernelTable& kernels,
                                         const Device& device, std::span<const TensorType> inputs,
                                         const PlanOptions& options, PackCache* packs,
                                         std::shared_ptr<Arena> arena) {
  return PlanBuilder(graph, kernels, device, options, packs, std::move(arena)).Build(inputs);
}

void Plan::TakeArena() {
  if (arena_ == nullptr) return;
  char* const arena = arena_->Reserve(memory_.peak_bytes - memory_.kept_bytes);
  if (arena != placed_) Place(own_.as<char>(), arena);
  placed_ = arena;
}

void Plan::Place(char* own, char* shared) {
  const auto at = [&](size_t offset) {
    return offset < memory_.kept_bytes ? own + offset : shared + (offset - memory_.kept_bytes);
  };
  for (size_t i = 0; i < views_.size(); ++i) {
    const size_t offset = memory_.offsets[static_cast<size_t>(roots_[i])];
    if (offset == kNotInArena) continue;
    views_[i].data = at(offset);
    if (frozen_sources_[i] == kNoValue) frozen_views_[i].data = views_[i].data;
  }
  for (size_t i = 0; i < steps_.size(); ++i) {
    const size_t offset = memory_.workspace_offsets[i];
    if (offset != kNotInArena) steps_[i].workspace = at(offset);
  }
}

void Plan::Bind(ValueId value, void* data) {
  CHECK(roots_[value] == value && memory_.offsets[value] == kNotInArena)
      << "value " << value << " has its own memory";
  if (views_[value].data != data) {
    recorded_.reset();
    ran_ = false;
  }
  const auto index = static_cast<size_t>(value);
  views_[index].type.dtype = frozen_views_[index].type.dtype;  // BindHalves
  for (const size_t i : in_memory_of_[index]) views_[i].data = frozen_views_[i].data = data;
  for (const size_t i : stands_for_[index]) frozen_views_[i].data = data;
}

void Plan::BindHalves(ValueId parameter, void* data, DType dtype) {
  CHECK(Widens(parameter));
  Bind(parameter, data);
  views_[parameter].type.dtype = dtype;
}

Status Plan::Feed(ValueId input, void* data) {
  if (accelerator_ == nullptr) {
    Bind(input, data);
    return Status::Ok();
  }
  auto feed = feeds_.find(input);
  if (feed == feeds_.end()) {
    LEPTON_ASSIGN_OR_RETURN(DeviceFeed made,
                            DeviceFeed::Make(*accelerator_, views_[input].type.bytes()));
    feed = feeds_.emplace(input, std::move(made)).first;
  }
  feed->second.Send(data);
  Bind(input, feed->second.place());
  return Status::Ok();
}

Status Plan::Fetch(ValueId value, void* data) {
  const TensorView& view = views_[value];
  if (accelerator_ == nullptr) {
    if (view.data != data) std::memcpy(data, view.data, view.type.bytes());
    return Status::Ok();
  }
  accelerator_->CopyOut(data, view.data, view.type.bytes());
  return accelerator_->Synchronize();
}

void Plan::RunPrologue(const RunState& state) {
  PreparePrologue(state, 0, {});
  version_ = 0;
}

void Plan::RunPrologue(const RunState& state, uint64_t version, const BindParameters& bind) {
  if (version != version_) PreparePrologue(state, version, bind);
  version_ = version;
}

void Plan::PreparePrologue(const RunState& state, uint64_t version, const BindParameters& bind) {
  TakeArena();
  if (run_state_ != nullptr) SendRunState(state, *run_state_);
  const auto bind_for = [&](const Step& step) {
    if (bind && !step.parameters.empty()) bind(step.parameters);
  };
  for (size_t i = 0; i < prologue_steps_; ++i) {
    bind_for(steps_[i]);
    RunSteps(i, i + 1, state);
  }
  for (const Step& step : steps_) {
    if (transient_packs_ || !step.prepared) continue;
    if (version != 0 && step.kernel->pack()->version == version) continue;
    bind_for(step);
    Prepare(step, state, version);
    progress::Tick();
  }
}

void Plan::Prepare(const Step& step, const RunState& state, uint64_t version) {
  step.kernel->Prepare(KernelContext(frozen_views_.data(), *step.nodes[0], state));
  step.kernel->pack()->version = version;
}

void Plan::RunSteps(size_t first, size_t last, const RunState& state, const OutputReady& ready,
                    const ParametersNeeded& needed) {
  const auto* device_run =
      run_state_ == nullptr ? nullptr : static_cast<DeviceRunState*>(run_state_->place());
  for (size_t i = first; i < last; ++i) {
    const Step& step = steps_[i];
    if (needed && !step.parameters.empty() && !needed(step.parameters)) return;
    if (transient_packs_ && step.prepared) Prepare(step, state, 0);
    step.kernel->Run(
        KernelContext(views_.data(), *step.nodes[0], state, step.workspace, device_run));
    progress::Tick();
    if (ready) std::for_each(step.final_outputs.begin(), step.final_outputs.end(), ready);
  }
}

void Plan::Run(const RunState& state, const OutputReady& ready) {
  TakeArena();
  if (state.profile != nullptr) return RunProfiled(state, ready);
  if (accelerator_ != nullptr) return RunQueued(state);
  RunSteps(prologue_steps_, steps_.size(), state, ready);
}

void Plan::RunVisiting(const RunState& state, const ParametersNeeded& needed,
                       const OutputReady& ready) {
  CHECK(transient_packs_ && accelerator_ == nullptr);
  TakeArena();
  RunSteps(0, steps_.size(), state, ready, needed);
}

void Plan::Walk(const ParametersNeeded& needed, const OutputReady& ready) const {
  for (const Step& step : steps_) {
    if (!step.parameters.empty() && !needed(step.parameters)) return;
    if (ready) std::for_each(step.final_outputs.begin(), step.final_outputs.end(), ready);
  }
}

void Plan::RunQueued(const RunState& state) {
  SendRunState(state, *run_state_);
  // The first run lets the device's libraries load what they need.
  if (records_ && ran_ && recorded_ == nullptr) {
    const Status status = Record(state);
    if (!status.ok()) {
      LOG(WARNING) << "steps are queued one by one: " << status.ToString();
      records_ = false;
    }
  }
  if (recorded_ != nullptr) {
    recorded_->Replay();
  } else {
    RunSteps(prologue_steps_, steps_.size(), state);
  }
  ran_ = true;
}

Status Plan::Record(const RunState& state) {
  LEPTON_RETURN_IF_ERROR(accelerator_->BeginRecording());
  RunSteps(prologue_steps_, steps_.size(), state);
  LEPTON_ASSIGN_OR_RETURN(recorded_, accelerator_->EndRecording());
  return Status::Ok();
}

void Plan::RunProfiled(const RunState& state, const OutputReady& ready) {
  if (accelerator_ != nullptr) SendRunState(state, *run_state_);
  for (size_t i = prologue_steps_; i < steps_.size(); ++i) {
    const Step& step = steps_[i];
    const KernelContext context(views_.data(), *step.nodes[0], state);
    WaitFor(accelerator_);
    const auto start = std::chrono::steady_clock::now();
    RunSteps(i, i + 1, state);
    WaitFor(accelerator_);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    std::string name = NameOf(step);
    double bytes = 0;
    for (int k = 0; k < context.inputs() + context.outputs(); ++k) {
      const bool output = k >= context.inputs();
      if (k == context.inputs()) name += " ->";
      const TensorType& type =
          output ? context.output(k - context.inputs()).type : context.input(k).type;
      name += " " + type.ToString();
      bytes += static_cast<double>(type.bytes());
    }
    state.profile->Add(name, taken.count(), FlopsOf(*step.nodes[0], context), bytes);
    if (ready) std::for_each(step.final_outputs.begin(), step.final_outputs.end(), ready);
  }
}

std::string Plan::NameOf(const Step& step) {
  std::string name;
  for (const Node* node : step.nodes) {
    name += (name.empty() ? "" : "+") + std::string(node->op->name());
  }
  return name + ": " + std::string(step.implementation);
}

std::vector<std::string> Plan::KernelNames() const {
  std::vector<std::string> names;
  for (const Step& step : steps_) names.push_back(NameOf(step));
  return names;
}

}  // namespace lepton::graph
