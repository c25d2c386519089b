// Reverse-mode differentiation by graph rewriting: gradient nodes are appended to the same graph,
// so that one memory plan and one schedule cover forward and backward. Threads: the graph's
// builder.
#pragma once

#include <span>
#include <vector>

#include "runtime/graph/graph.h"

namespace lepton::graph {

// The gradient of the sum of `objective`'s elements by each value of `with_respect_to`, each f32
// and of the value's shape. A value used several times gets the sum of its uses, added in the
// reverse order of the uses: the same order always. kInvalidArgument names a value that the
// objective does not depend on, or a node on the way that has no gradient.
//
// What gradients read may be computed a second time instead of kept (recomputation.h); every bit
// stays the same. `recompute_blocks`: blocks of nodes (Graph::BeginBlock), each where the backward
// pass enters it: a plan keeps the values between blocks, and those within one block at a time, for
// one more forward pass. `recompute_cheap`, where that is not: what costs about a pass over memory.
struct GradientOptions {
  bool recompute_blocks = false;
  bool recompute_cheap = false;
};
Result<std::vector<ValueId>> AddGradients(Graph& graph, ValueId objective,
                                          std::span<const ValueId> with_respect_to,
                                          const GradientOptions& options = {});

}  // namespace lepton::graph
