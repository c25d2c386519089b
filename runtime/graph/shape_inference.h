// The types of a graph's values once its inputs' shapes are known.
// Threads: pure functions.
#pragma once

#include <span>
#include <vector>

#include "runtime/graph/graph.h"

namespace lepton::graph {

// One concrete type per value, in value order. `inputs`: the types of the graph's inputs, in the
// order in which they were added. kInvalidArgument names the input that does not fit its declared
// type (extents may differ only where the declaration is open), or the node that refuses.
Result<std::vector<TensorType>> InferTypes(const Graph& graph, std::span<const TensorType> inputs);

// The declared types of the graph's inputs with the open extents bound (`sequence` 0: there is
// none).
std::vector<TensorType> InputTypesForBatch(const Graph& graph, int64_t batch, int64_t sequence = 0);

}  // namespace lepton::graph
