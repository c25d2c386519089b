#include "runtime/graph/passes/simplify.h"

#include <algorithm>
#include <numeric>
#include <unordered_map>

namespace lepton::graph {
namespace {

size_t Hash(const Node& node) {
  size_t hash = std::hash<std::string_view>()(node.op->name());
  for (const ValueId input : node.inputs) hash = hash * 1000003 + static_cast<size_t>(input);
  return hash;
}

// The x of bf16(f32(x)), or kNoValue.
ValueId CancelledCast(const Graph& graph, const Node& node, const std::deque<Node>& nodes) {
  if (node.op->name() != "cast") return kNoValue;
  const NodeId inner = graph.value(node.inputs[0]).producer;
  if (inner == kNoNode || nodes[inner].op->name() != "cast") return kNoValue;
  const ValueId x = nodes[inner].inputs[0];
  // The other way round the inner cast rounds.
  const bool cancels =
      graph.type(x).dtype == DType::kBF16 && graph.type(node.outputs[0]).dtype == DType::kBF16;
  return cancels ? x : kNoValue;
}

}  // namespace

std::deque<Node> Simplify(const Graph& graph) {
  std::vector<ValueId> same(graph.values().size());
  std::iota(same.begin(), same.end(), 0);
  std::vector<bool> wanted(same.size());
  for (const Output& output : graph.outputs()) wanted[output.value] = true;
  std::unordered_multimap<size_t, NodeId> known;
  std::deque<Node> nodes = graph.nodes();
  for (NodeId id = 0; id < static_cast<NodeId>(nodes.size()); ++id) {
    Node& node = nodes[id];
    for (ValueId& input : node.inputs) input = same[input];
    const bool kept = std::any_of(node.outputs.begin(), node.outputs.end(),
                                  [&](ValueId output) { return wanted[output]; });
    if (kept) continue;
    if (const ValueId x = CancelledCast(graph, node, nodes); x != kNoValue) {
      same[node.outputs[0]] = x;
      continue;
    }
    const size_t hash = Hash(node);
    bool found = false;
    const auto [first, last] = known.equal_range(hash);
    for (auto it = first; it != last && !found; ++it) {
      const Node& other = nodes[it->second];
      found = other.op == node.op && other.inputs == node.inputs &&
              other.attributes == node.attributes && other.recomputed == node.recomputed;
      for (size_t i = 0; found && i < node.outputs.size(); ++i) {
        same[node.outputs[i]] = other.outputs[i];
      }
    }
    if (!found) known.emplace(hash, id);
  }
  return nodes;
}

}  // namespace lepton::graph
