// Losses whose logits would need too much memory: where the logits of a cross_entropy come from a
// matmul alone and nobody else reads them, both become one linear_cross_entropy, and the gradients
// through them one linear_cross_entropy_grad, which have a piece of the logits in memory at a time.
//
//   logits = matmul(hidden, weight)             losses, tops, sums =
//   losses = cross_entropy(logits, targets)  ->   linear_cross_entropy(hidden, weight, targets)
//   dlogits = cross_entropy_grad(.., dlosses)   dhidden, dweight =
//   dhidden, dweight = matmul(dlogits, ..)        linear_cross_entropy_grad(..)
//
// The logits are then made twice, so only shapes take part whose logits are larger than a piece.
// Threads: a pure function.
#pragma once

#include <deque>
#include <optional>
#include <span>

#include "runtime/graph/graph.h"

namespace lepton::graph {

// Of logits in f32, and so of a piece.
inline constexpr int64_t kMostLogitsBytes = int64_t{64} << 20;

struct LossPieces {
  Graph graph;             // the same, with more values behind those that it had
  std::deque<Node> nodes;  // of its schedule, in the places of those that were given
};
// `nodes`: the graph's, simplified; `types`: by value. Nothing where no loss needs it.
std::optional<LossPieces> FindLossPieces(const Graph& graph, const std::deque<Node>& nodes,
                                         std::span<const TensorType> types);

}  // namespace lepton::graph
