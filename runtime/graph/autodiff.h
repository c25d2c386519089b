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
Result<std::vector<ValueId>> AddGradients(Graph& graph, ValueId objective,
                                          std::span<const ValueId> with_respect_to);

}  // namespace lepton::graph
