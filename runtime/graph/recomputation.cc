#include "runtime/graph/recomputation.h"

#include <algorithm>

namespace lepton::graph {
namespace {

// By value, whether it follows from parameters alone.
std::vector<bool> FromParameters(const Graph& graph, NodeId last) {
  std::vector<bool> constant(graph.values().size());
  for (size_t i = 0; i < constant.size(); ++i) {
    constant[i] = graph.values()[i].kind == ValueKind::kParameter;
  }
  for (NodeId id = 0; id <= last; ++id) {
    const Node& node = graph.nodes()[id];
    const bool all = std::all_of(node.inputs.begin(), node.inputs.end(),
                                 [&](ValueId input) { return constant[input]; });
    for (const ValueId output : node.outputs) constant[output] = all;
  }
  return constant;
}

}  // namespace

BlockRecomputation::BlockRecomputation(Graph& graph, NodeId last) : graph_(graph) {
  const std::vector<bool> constant = FromParameters(graph, last);
  for (NodeId id = 0; id <= last; ++id) {
    const Node& node = graph.nodes()[id];
    const int32_t block = node.block;
    if (block == 0 || constant[node.outputs[0]]) continue;
    if (block >= static_cast<int32_t>(blocks_.size())) blocks_.resize(block + 1);
    blocks_[block].push_back(id);
  }
  // The last block's values are needed at once.
  if (!blocks_.empty()) blocks_.back().clear();
}

Node BlockRecomputation::NodeFor(NodeId id) {
  const int32_t block = graph_.nodes()[id].block;
  if (block == 0 || blocks_[block].empty()) return graph_.nodes()[id];
  if (block != entered_) Enter(block);
  const auto found = again_.find(id);
  return graph_.nodes()[found == again_.end() ? id : found->second];
}

void BlockRecomputation::Enter(int32_t block) {
  entered_ = block;
  again_.clear();
  std::unordered_map<ValueId, ValueId> values;
  for (const NodeId id : blocks_[block]) {
    std::vector<ValueId> inputs = graph_.nodes()[id].inputs;
    for (ValueId& input : inputs) {
      const auto found = values.find(input);
      if (found != values.end()) input = found->second;
    }
    const NodeId again = graph_.Repeat(id, std::move(inputs));
    again_[id] = again;
    const Node& from = graph_.nodes()[id];
    const Node& to = graph_.nodes()[again];
    for (size_t i = 0; i < from.outputs.size(); ++i) values[from.outputs[i]] = to.outputs[i];
  }
}

CheapRecomputation::CheapRecomputation(Graph& graph, NodeId last, const std::vector<bool>& read)
    : graph_(graph), nodes_of_(graph.values().size()), made_(graph.values().size(), kNoValue) {
  const std::vector<bool> constant = FromParameters(graph, last);
  std::vector<bool> of_outputs(graph.values().size());
  for (const Output& output : graph.outputs()) of_outputs[output.value] = true;
  for (NodeId id = 0; id <= last; ++id) {
    const Node& node = graph.nodes()[id];
    const ValueId y = node.outputs[0];
    if (!node.op->cheap_again() || constant[y] || of_outputs[y]) continue;
    int nodes = 1;
    bool there = true;
    for (const ValueId input : node.inputs) {
      // A value that nobody keeps and that is not cheap would have to be kept for this one.
      const bool source = graph.value(input).kind != ValueKind::kComputed || constant[input];
      there = there && (source || read[input] || nodes_of_[input] > 0);
      nodes += nodes_of_[input];
    }
    if (there && nodes <= kMostNodes) nodes_of_[y] = nodes;
  }
}

Result<Node> CheapRecomputation::NodeFor(NodeId id) {
  Node node = graph_.nodes()[id];
  for (ValueId& input : node.inputs) {
    LEPTON_ASSIGN_OR_RETURN(input, Again(input));
  }
  for (ValueId& output : node.outputs) {
    LEPTON_ASSIGN_OR_RETURN(output, Again(output));
  }
  return node;
}

Result<ValueId> CheapRecomputation::Again(ValueId value) {
  if (value >= static_cast<ValueId>(nodes_of_.size()) || !is_cheap(value)) return value;
  if (made_[value] != kNoValue) return made_[value];
  const NodeId producer = graph_.value(value).producer;
  std::vector<ValueId> inputs = graph_.nodes()[producer].inputs;
  for (ValueId& input : inputs) {
    LEPTON_ASSIGN_OR_RETURN(input, Again(input));
  }
  LEPTON_ASSIGN_OR_RETURN(const std::vector<ValueId> outputs,
                          graph_.nodes()[producer].op->Again(graph_, producer, std::move(inputs)));
  return made_[value] = outputs[0];
}

std::vector<bool> ReadByGradients(const Graph& graph, NodeId last,
                                  std::span<const ValueId> results) {
  std::vector<bool> read(graph.values().size());
  for (const ValueId result : results) read[result] = true;
  for (NodeId id = static_cast<NodeId>(graph.nodes().size()) - 1; id > last; --id) {
    const Node& node = graph.nodes()[id];
    const bool live = std::any_of(node.outputs.begin(), node.outputs.end(),
                                  [&](ValueId output) { return read[output]; });
    if (!live) continue;
    for (const ValueId input : node.inputs) read[input] = true;
  }
  return read;
}

}  // namespace lepton::graph
