#include "runtime/graph/passes/memory_plan.h"

#include <algorithm>
#include <numeric>

#include "runtime/tensor/buffer.h"

namespace lepton::graph {
namespace {

std::vector<Lifetime> FindLifetimes(const Graph& graph, const Schedule& schedule,
                                    std::span<const TensorType> types) {
  std::vector<Lifetime> lifetimes(graph.values().size());
  std::vector<NodeId> order = schedule.prologue;
  order.insert(order.end(), schedule.body.begin(), schedule.body.end());
  const int end = static_cast<int>(order.size());
  for (int step = 0; step < end; ++step) {
    const Node& node = graph.nodes()[order[step]];
    const bool hoisted = step < static_cast<int>(schedule.prologue.size());
    for (const ValueId output : node.outputs) {
      lifetimes[output] = {hoisted ? 0 : step, hoisted ? end : step,
                           AlignedSize(types[output].bytes())};
    }
    for (const ValueId input : node.inputs) {
      if (lifetimes[input].first >= 0) {
        lifetimes[input].last = std::max(lifetimes[input].last, step);
      }
    }
  }
  for (const Output& output : graph.outputs()) {
    if (lifetimes[output.value].first >= 0) lifetimes[output.value].last = end;
  }
  for (const Output& output : graph.outputs()) {
    if (output.external) lifetimes[output.value] = {};
  }
  return lifetimes;
}

bool Meet(const Lifetime& a, const Lifetime& b) {
  return a.first <= b.last && b.first <= a.last;
}

// The lowest offset where `value` fits among the values placed already.
size_t FindOffset(const MemoryPlan& plan, const std::vector<ValueId>& placed, ValueId value) {
  std::vector<ValueId> neighbours;
  for (const ValueId other : placed) {
    if (Meet(plan.lifetimes[other], plan.lifetimes[value])) neighbours.push_back(other);
  }
  std::sort(neighbours.begin(), neighbours.end(), [&](ValueId a, ValueId b) {
    return plan.offsets[a] != plan.offsets[b] ? plan.offsets[a] < plan.offsets[b] : a < b;
  });
  size_t offset = 0;
  for (const ValueId other : neighbours) {
    if (offset + plan.lifetimes[value].bytes <= plan.offsets[other]) break;
    offset = std::max(offset, plan.offsets[other] + plan.lifetimes[other].bytes);
  }
  return offset;
}

size_t MostAliveBytes(const std::vector<Lifetime>& lifetimes, int steps) {
  size_t most = 0;
  for (int step = 0; step < std::max(1, steps); ++step) {
    size_t alive = 0;
    for (const Lifetime& life : lifetimes) {
      if (life.first >= 0 && life.first <= step && step <= life.last) alive += life.bytes;
    }
    most = std::max(most, alive);
  }
  return most;
}

}  // namespace

MemoryPlan PlanMemory(const Graph& graph, const Schedule& schedule,
                      std::span<const TensorType> types) {
  MemoryPlan plan;
  plan.lifetimes = FindLifetimes(graph, schedule, types);
  plan.offsets.assign(graph.values().size(), kNotInArena);
  std::vector<ValueId> order;
  for (size_t i = 0; i < plan.lifetimes.size(); ++i) {
    if (plan.lifetimes[i].first >= 0) order.push_back(static_cast<ValueId>(i));
  }
  std::stable_sort(order.begin(), order.end(), [&](ValueId a, ValueId b) {
    return plan.lifetimes[a].bytes > plan.lifetimes[b].bytes;
  });
  std::vector<ValueId> placed;
  for (const ValueId value : order) {
    plan.offsets[value] = FindOffset(plan, placed, value);
    plan.peak_bytes = std::max(plan.peak_bytes, plan.offsets[value] + plan.lifetimes[value].bytes);
    placed.push_back(value);
  }
  const int steps = static_cast<int>(schedule.prologue.size() + schedule.body.size()) + 1;
  plan.lower_bound_bytes = MostAliveBytes(plan.lifetimes, steps);
  return plan;
}

}  // namespace lepton::graph
