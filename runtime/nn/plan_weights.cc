#include "runtime/nn/plan_weights.h"

#include <utility>

namespace lepton::nn {

using graph::ValueId;

namespace {

// Kernels read parameters through the same untyped pointers that they write outputs through.
void BindTo(graph::Plan& plan, ValueId value, const std::shared_ptr<const float>& floats) {
  plan.Bind(value, const_cast<float*>(floats.get()));
}

}  // namespace

void PlanWeights::Bind(std::shared_ptr<StoredWeights> weights) {
  weights_ = std::move(weights);
  held_.clear();
  for (size_t i = 0; i < parameters_.size(); ++i) parameter_of_[parameters_[i].value] = i;
  ++binding_;
}

const SourceTensor* PlanWeights::HalvesFor(const graph::Plan& plan, ValueId value) const {
  return plan.Widens(value) ? weights_->Halves(parameter_of_.at(value)) : nullptr;
}

void PlanWeights::Prepare(graph::Plan& plan, bool made, uint64_t version) {
  State& state = ready_[&plan];
  const State wanted = {binding_, version};
  if (!made && state == wanted) return;
  for (const ValueId value : plan.run_parameters()) {
    if (HalvesFor(plan, value) == nullptr) held_.try_emplace(value, FloatsOf(value));
  }
  std::map<ValueId, Floats> passing;
  plan.RunPrologue({}, version, [&](std::span<const ValueId> values) {
    passing.clear();
    for (const ValueId value : values) BindTo(plan, value, passing[value] = FloatsOf(value));
  });
  for (const ValueId value : plan.run_parameters()) {
    const SourceTensor* const halves = HalvesFor(plan, value);
    if (halves == nullptr) {
      BindTo(plan, value, held_.at(value));
    } else {
      plan.BindHalves(value, const_cast<void*>(halves->data), halves->dtype);
    }
  }
  state = wanted;
}

}  // namespace lepton::nn
