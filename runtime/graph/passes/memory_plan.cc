#include "runtime/graph/passes/memory_plan.h"

#include <algorithm>

#include "runtime/tensor/buffer.h"

namespace lepton::graph {
namespace {

std::vector<Lifetime> FindLifetimes(const Graph& graph, std::span<const StepUse> steps,
                                    size_t prologue, std::span<const TensorType> types) {
  std::vector<Lifetime> lifetimes(graph.values().size());
  const int end = static_cast<int>(steps.size());
  for (int step = 0; step < end; ++step) {
    const bool hoisted = step < static_cast<int>(prologue);
    for (const ValueId output : steps[step].writes) {
      lifetimes[output] = {hoisted ? 0 : step, hoisted ? end : step,
                           AlignedSize(types[output].bytes())};
    }
    for (const ValueId input : steps[step].reads) {
      if (lifetimes[input].first >= 0) {
        lifetimes[input].last = std::max(lifetimes[input].last, step);
      }
    }
  }
  for (const Output& output : graph.outputs()) {
    // A passing one is taken behind the last step that touches it.
    if (!output.passing && lifetimes[output.value].first >= 0) lifetimes[output.value].last = end;
  }
  for (const Output& output : graph.outputs()) {
    if (output.external) lifetimes[output.value] = {};
  }
  return lifetimes;
}

// A value or a workspace on its way into the arena.
struct Item {
  Lifetime life;
  size_t* offset;
};

// Those placed so far, by offset.
class Placement {
 public:
  size_t Place(const Lifetime& life) {
    size_t offset = 0;
    for (const auto& [at, other] : placed_) {
      if (other.first > life.last || life.first > other.last) continue;
      if (offset + life.bytes <= at) break;
      offset = std::max(offset, at + other.bytes);
    }
    const auto after =
        std::upper_bound(placed_.begin(), placed_.end(), offset,
                         [](size_t at, const auto& item) { return at < item.first; });
    placed_.insert(after, {offset, life});
    return offset;
  }

 private:
  std::vector<std::pair<size_t, Lifetime>> placed_;
};

size_t MostAliveBytes(const std::vector<Item>& items, size_t steps) {
  std::vector<int64_t> change(steps + 2);
  for (const Item& item : items) {
    change[item.life.first] += static_cast<int64_t>(item.life.bytes);
    change[item.life.last + 1] -= static_cast<int64_t>(item.life.bytes);
  }
  int64_t alive = 0, most = 0;
  for (const int64_t by : change) most = std::max(most, alive += by);
  return static_cast<size_t>(most);
}

}  // namespace

MemoryPlan PlanMemory(const Graph& graph, std::span<const StepUse> steps, size_t prologue,
                      std::span<const TensorType> types) {
  MemoryPlan plan;
  plan.lifetimes = FindLifetimes(graph, steps, prologue, types);
  plan.offsets.assign(graph.values().size(), kNotInArena);
  plan.workspace_offsets.assign(steps.size(), kNotInArena);
  for (const StepUse& step : steps.first(prologue)) {
    for (const ValueId output : step.writes) {
      if (plan.lifetimes[output].first < 0) continue;
      plan.offsets[output] = plan.kept_bytes;
      plan.kept_bytes += plan.lifetimes[output].bytes;
    }
  }
  std::vector<Item> items;
  for (size_t i = 0; i < plan.lifetimes.size(); ++i) {
    const bool placed = plan.offsets[i] != kNotInArena;
    if (plan.lifetimes[i].first >= 0 && !placed) {
      items.push_back({plan.lifetimes[i], &plan.offsets[i]});
    }
  }
  for (size_t i = 0; i < steps.size(); ++i) {
    if (steps[i].workspace_bytes == 0) continue;
    const int step = static_cast<int>(i);
    items.push_back(
        {{step, step, AlignedSize(steps[i].workspace_bytes)}, &plan.workspace_offsets[i]});
  }
  plan.lower_bound_bytes = plan.kept_bytes + MostAliveBytes(items, steps.size());
  std::stable_sort(items.begin(), items.end(),
                   [](const Item& a, const Item& b) { return a.life.bytes > b.life.bytes; });
  Placement placement;
  plan.peak_bytes = plan.kept_bytes;
  for (const Item& item : items) {
    *item.offset = plan.kept_bytes + placement.Place(item.life);
    plan.peak_bytes = std::max(plan.peak_bytes, *item.offset + item.life.bytes);
  }
  return plan;
}

MemoryPlan PlanMemory(const Graph& graph, const Schedule& schedule,
                      std::span<const TensorType> types) {
  std::vector<StepUse> steps;
  for (const auto* part : {&schedule.prologue, &schedule.body}) {
    for (const NodeId id : *part) {
      const Node& node = graph.nodes()[id];
      steps.push_back({node.inputs, node.outputs});
    }
  }
  return PlanMemory(graph, steps, schedule.prologue.size(), types);
}

}  // namespace lepton::graph
