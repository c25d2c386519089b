// Places every computed value in one arena: those of the prologue, which stay from run to run, side
// by side at its beginning, behind them the others. Values whose lifetimes do not meet share bytes.
// Greedy by size (Pisarchyk and Lee 2020, "Efficient memory management for deep neural net
// inference"): the largest value first, each at the lowest offset that is free during its whole
// life. Threads: pure functions.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "runtime/graph/graph.h"
#include "runtime/graph/passes/live_nodes.h"

namespace lepton::graph {

inline constexpr size_t kNotInArena = static_cast<size_t>(-1);

// What a step does to memory. Values that share another's memory (a reshape) stand for that one.
struct StepUse {
  std::vector<ValueId> reads, writes;
  size_t workspace_bytes = 0;
};

// A value's life in steps, prologue first: from the step that writes it through the last one that
// reads it. Values of the prologue and outputs live to the end, but for passing outputs.
struct Lifetime {
  int first = -1;  // -1: not in the arena (an input, a parameter, an external output, or dead)
  int last = -1;
  size_t bytes = 0;  // rounded up to Buffer::kAlignment
};

struct MemoryPlan {
  std::vector<size_t> offsets;            // by value; kNotInArena
  std::vector<Lifetime> lifetimes;        // by value
  std::vector<size_t> workspace_offsets;  // by step; kNotInArena where it needs none
  size_t kept_bytes = 0;                  // of the prologue's values: offsets below it
  size_t peak_bytes = 0;                  // the arena's size
  size_t lower_bound_bytes = 0;  // the most bytes alive at one step: no plan can be smaller
};

// The first `prologue` steps are the prologue's.
MemoryPlan PlanMemory(const Graph& graph, std::span<const StepUse> steps, size_t prologue,
                      std::span<const TensorType> types);
// One node a step.
MemoryPlan PlanMemory(const Graph& graph, const Schedule& schedule,
                      std::span<const TensorType> types);

}  // namespace lepton::graph
