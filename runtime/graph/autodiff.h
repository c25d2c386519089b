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
// With `recompute_blocks`, gradients inside of a block of nodes (Graph::BeginBlock) read values
// that are computed a second time, from what flows into the block, where the backward pass enters
// it: a plan then keeps the values between blocks, and those within one block at a time, for one
// more forward pass (Chen et al. 2016, "Training deep nets with sublinear memory cost"). The last
// block is not repeated, nor is what follows from parameters alone. Every bit stays the same:
// random numbers follow from counters, and no kernel's sums depend on where it runs.
struct GradientOptions {
  bool recompute_blocks = false;
};
Result<std::vector<ValueId>> AddGradients(Graph& graph, ValueId objective,
                                          std::span<const ValueId> with_respect_to,
                                          const GradientOptions& options = {});

}  // namespace lepton::graph
