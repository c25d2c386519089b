#include "runtime/graph/plan.h"

#include "runtime/base/logging.h"
#include "runtime/graph/plan_builder.h"

namespace lepton::graph {

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
  }
}

void Plan::Run(const RunState& state) {
  for (size_t i = prologue_steps_; i < steps_.size(); ++i) {
    const Step& step = steps_[i];
    step.kernel->Run(KernelContext(views_.data(), *step.nodes[0], state, step.workspace));
  }
}

std::vector<std::string> Plan::KernelNames() const {
  std::vector<std::string> names;
  for (const Step& step : steps_) {
    std::string name;
    for (const Node* node : step.nodes) {
      name += (name.empty() ? "" : "+") + std::string(node->op->name());
    }
    names.push_back(name + ": " + std::string(step.implementation));
  }
  return names;
}

}  // namespace lepton::graph
