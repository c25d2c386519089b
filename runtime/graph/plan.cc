#include "runtime/graph/plan.h"

#include <algorithm>
#include <chrono>
#include <cmath>

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
  if (op == "conv2d" || op == "conv2d_input_grad" || op == "conv2d_weight_grad") {
    const bool forward = op == "conv2d";
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

}  // namespace

Result<std::unique_ptr<Plan>> Plan::Make(const Graph& graph, const KernelTable& kernels,
                                         const Device& device, std::span<const TensorType> inputs,
                                         const PlanOptions& options, PackCache* packs) {
  return PlanBuilder(graph, kernels, device, options, packs).Build(inputs);
}

void Plan::Bind(ValueId value, void* data) {
  CHECK(roots_[value] == value && memory_.offsets[value] == kNotInArena)
      << "value " << value << " has its own memory";
  for (size_t i = 0; i < roots_.size(); ++i) {
    if (roots_[i] == value) views_[i].data = frozen_views_[i].data = data;
    if (frozen_sources_[i] == value) frozen_views_[i].data = data;
  }
}

void Plan::RunPrologue(const RunState& state) {
  PreparePrologue(state, 0);
  version_ = 0;
}

void Plan::RunPrologue(const RunState& state, uint64_t version) {
  if (version != version_) PreparePrologue(state, version);
  version_ = version;
}

void Plan::PreparePrologue(const RunState& state, uint64_t version) {
  for (size_t i = 0; i < prologue_steps_; ++i) {
    const Step& step = steps_[i];
    step.kernel->Run(KernelContext(views_.data(), *step.nodes[0], state, step.workspace));
  }
  for (const Step& step : steps_) {
    if (!step.prepared) continue;
    step.kernel->Prepare(
        KernelContext(frozen_views_.data(), *step.nodes[0], state, nullptr, version));
    progress::Tick();
  }
}

void Plan::Run(const RunState& state, const OutputReady& ready) {
  if (state.profile != nullptr) return RunProfiled(state, ready);
  for (size_t i = prologue_steps_; i < steps_.size(); ++i) {
    const Step& step = steps_[i];
    step.kernel->Run(KernelContext(views_.data(), *step.nodes[0], state, step.workspace));
    progress::Tick();
    if (ready) std::for_each(step.final_outputs.begin(), step.final_outputs.end(), ready);
  }
}

void Plan::RunProfiled(const RunState& state, const OutputReady& ready) {
  for (size_t i = prologue_steps_; i < steps_.size(); ++i) {
    const Step& step = steps_[i];
    const KernelContext context(views_.data(), *step.nodes[0], state, step.workspace);
    const auto start = std::chrono::steady_clock::now();
    step.kernel->Run(context);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    progress::Tick();
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
