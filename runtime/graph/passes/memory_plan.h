// Places every computed value in one arena. Values whose lifetimes do not meet share bytes. Greedy
// by size (Pisarchyk and Lee 2020, "Efficient memory management for deep neural net inference"):
// the largest value first, each at the lowest offset that is free during its whole life. Threads:
// pure functions.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "runtime/graph/graph.h"
#include "runtime/graph/passes/live_nodes.h"

namespace lepton::graph {

inline constexpr size_t kNotInArena = static_cast<size_t>(-1);

// A value's life in steps of the schedule, prologue first: from the step that writes it through the
// last one that reads it. Values of the prologue and outputs live to the end.
struct Lifetime {
  int first = -1;  // -1: not in the arena (an input, a parameter, an external output, or dead)
  int last = -1;
  size_t bytes = 0;  // rounded up to Buffer::kAlignment
};

struct MemoryPlan {
  std::vector<size_t> offsets;  // by value; kNotInArena
  std::vector<Lifetime> lifetimes;
  size_t peak_bytes = 0;         // the arena's size
  size_t lower_bound_bytes = 0;  // the most bytes alive at one step: no plan can be smaller
};

MemoryPlan PlanMemory(const Graph& graph, const Schedule& schedule,
                      std::span<const TensorType> types);

}  // namespace lepton::graph
