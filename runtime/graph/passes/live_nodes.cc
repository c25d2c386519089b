#include "runtime/graph/passes/live_nodes.h"

#include <algorithm>

namespace lepton::graph {

Schedule ScheduleLiveNodes(const Graph& graph, const std::deque<Node>& nodes) {
  std::vector<bool> needed(graph.values().size());
  for (const Output& output : graph.outputs()) needed[output.value] = true;
  std::vector<bool> live(nodes.size());
  for (NodeId id = static_cast<NodeId>(nodes.size()) - 1; id >= 0; --id) {
    const Node& node = nodes[id];
    live[id] = std::any_of(node.outputs.begin(), node.outputs.end(),
                           [&](ValueId output) { return needed[output]; });
    if (!live[id]) continue;
    for (const ValueId input : node.inputs) needed[input] = true;
  }

  std::vector<bool> constant(graph.values().size());
  for (size_t i = 0; i < constant.size(); ++i) {
    constant[i] = graph.values()[i].kind == ValueKind::kParameter;
  }
  Schedule schedule;
  for (NodeId id = 0; id < static_cast<NodeId>(nodes.size()); ++id) {
    if (!live[id]) continue;
    const Node& node = nodes[id];
    const bool hoisted = std::all_of(node.inputs.begin(), node.inputs.end(),
                                     [&](ValueId input) { return constant[input]; });
    for (const ValueId output : node.outputs) constant[output] = hoisted;
    (hoisted ? schedule.prologue : schedule.body).push_back(id);
  }
  return schedule;
}

}  // namespace lepton::graph
