// Dead code elimination and hoisting, as a choice of nodes to run: the graph itself stays as it is.
// Threads: pure functions.
#pragma once

#include <deque>
#include <vector>

#include "runtime/graph/graph.h"

namespace lepton::graph {

struct Schedule {
  // Nodes that depend on parameters only: run once after the parameters changed.
  std::vector<NodeId> prologue;
  // The rest, run each time.
  std::vector<NodeId> body;
};

// The nodes that some output of the graph needs, in graph order. `nodes`: the graph's, as they are
// or simplified.
Schedule ScheduleLiveNodes(const Graph& graph, const std::deque<Node>& nodes);
inline Schedule ScheduleLiveNodes(const Graph& graph) {
  return ScheduleLiveNodes(graph, graph.nodes());
}

}  // namespace lepton::graph
