#include "runtime/graph/executor.h"

#include <algorithm>

#include "runtime/graph/shape_inference.h"

namespace lepton::graph {

Result<Plan*> Executor::PlanFor(std::span<const TensorType> inputs, bool* made) {
  if (made != nullptr) *made = false;
  const auto found = std::find_if(plans_.begin(), plans_.end(), [&](const Cached& cached) {
    return std::equal(cached.inputs.begin(), cached.inputs.end(), inputs.begin(), inputs.end());
  });
  if (found != plans_.end()) {
    plans_.splice(plans_.begin(), plans_, found);
    return plans_.front().plan.get();
  }
  LEPTON_ASSIGN_OR_RETURN(std::unique_ptr<Plan> plan,
                          Plan::Make(graph_, kernels_, device_, inputs, options_, &packs_, arena_));
  plans_.push_front({{inputs.begin(), inputs.end()}, std::move(plan)});
  const bool own_arenas = options_.accelerator != nullptr;
  while (plans_.size() > 1 &&
         (plans_.size() > most_plans_ || (!own_arenas && plan_bytes() > kMostOwnBytes))) {
    plans_.pop_back();
  }
  if (made != nullptr) *made = true;
  return plans_.front().plan.get();
}

Result<Plan*> Executor::PlanForBatch(int64_t batch, bool* made) {
  return PlanFor(InputTypesForBatch(graph_, batch), made);
}

std::pair<size_t, size_t> Executor::largest_plan() const {
  std::pair<size_t, size_t> most;
  for (const Cached& cached : plans_) {
    const MemoryPlan& memory = cached.plan->memory();
    most = std::max(most, {memory.peak_bytes, memory.lower_bound_bytes});
  }
  return most;
}

size_t Executor::plan_bytes() const {
  size_t sum = 0;
  for (const Cached& cached : plans_) sum += cached.plan->own_bytes();
  return sum;
}

}  // namespace lepton::graph
