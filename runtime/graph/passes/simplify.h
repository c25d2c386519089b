// Common subexpressions and casts that cancel, as nodes with other inputs: values keep their ids,
// and what nobody reads any more is left to live_nodes.h. Threads: pure functions.
#pragma once

#include <deque>
#include <vector>

#include "runtime/graph/graph.h"

namespace lepton::graph {

// The graph's nodes, in order. An input that equals an earlier value is replaced by it:
//   the same op with the same inputs and attributes (the outputs of the graph stay);
//   bf16(f32(x)), which is x.
std::deque<Node> Simplify(const Graph& graph);

}  // namespace lepton::graph
