#include "runtime/graph/autodiff.h"

#include <algorithm>
#include <optional>
#include <unordered_map>

namespace lepton::graph {
namespace {

// For each value, whether it depends on one of `sources`.
std::vector<bool> DependsOn(const Graph& graph, std::span<const ValueId> sources) {
  std::vector<bool> depends(graph.values().size());
  for (const ValueId source : sources) depends[source] = true;
  for (const Node& node : graph.nodes()) {
    bool any = false;
    for (const ValueId input : node.inputs) any = any || depends[input];
    for (const ValueId output : node.outputs) depends[output] = depends[output] || any;
  }
  return depends;
}

// Adds a gradient that flows into a value.
Status Accumulate(Graph& graph, ValueId gradient, ValueId& total) {
  if (total == kNoValue) {
    total = gradient;
    return Status::Ok();
  }
  // Sums are f32.
  for (ValueId* part : {&gradient, &total}) {
    if (graph.type(*part).dtype == DType::kF32) continue;
    LEPTON_ASSIGN_OR_RETURN(*part, graph.Add("cast", {*part}, {{"to", "f32"}}));
  }
  LEPTON_ASSIGN_OR_RETURN(total, graph.Add("add", {total, gradient}));
  return Status::Ok();
}

// The nodes of blocks, done once more where the backward pass enters the block.
class Recomputation {
 public:
  Recomputation(Graph& graph, NodeId last) : graph_(graph) {
    std::vector<bool> constant(graph.values().size());
    for (size_t i = 0; i < constant.size(); ++i) {
      constant[i] = graph.values()[i].kind == ValueKind::kParameter;
    }
    for (NodeId id = 0; id <= last; ++id) {
      const Node& node = graph.nodes()[id];
      const bool from_parameters = std::all_of(node.inputs.begin(), node.inputs.end(),
                                               [&](ValueId input) { return constant[input]; });
      for (const ValueId output : node.outputs) constant[output] = from_parameters;
      const int32_t block = node.block;
      if (block == 0 || from_parameters) continue;
      if (block >= static_cast<int32_t>(blocks_.size())) blocks_.resize(block + 1);
      blocks_[block].push_back(id);
    }
    // The last block's values are needed at once.
    if (!blocks_.empty()) blocks_.back().clear();
  }

  // The node itself, or the one that does the same again for its gradient.
  Node NodeFor(NodeId id) {
    const int32_t block = graph_.nodes()[id].block;
    if (block == 0 || blocks_[block].empty()) return graph_.nodes()[id];
    if (block != entered_) Enter(block);
    const auto found = again_.find(id);
    return graph_.nodes()[found == again_.end() ? id : found->second];
  }

 private:
  void Enter(int32_t block) {
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

  Graph& graph_;
  std::vector<std::vector<NodeId>> blocks_;
  int32_t entered_ = 0;
  std::unordered_map<NodeId, NodeId> again_;  // of the block entered
};

}  // namespace

Result<std::vector<ValueId>> AddGradients(Graph& graph, ValueId objective,
                                          std::span<const ValueId> with_respect_to,
                                          const GradientOptions& options) {
  graph.EndBlock();
  const std::vector<bool> depends = DependsOn(graph, with_respect_to);
  std::vector<ValueId> gradients(graph.values().size(), kNoValue);
  LEPTON_ASSIGN_OR_RETURN(gradients[objective],
                          graph.Add("fill", {objective}, {{"value", 1.0}}, "gradient/seed"));
  std::optional<Recomputation> again;
  if (options.recompute_blocks) again.emplace(graph, graph.value(objective).producer);
  for (NodeId id = graph.value(objective).producer; id >= 0; --id) {
    const Node node = graph.nodes()[id];
    std::vector<ValueId> incoming;
    bool reached = false;
    bool wanted = false;
    for (const ValueId output : node.outputs) {
      incoming.push_back(gradients[output]);
      reached = reached || gradients[output] != kNoValue;
      wanted = wanted || depends[output];
    }
    if (!reached || !wanted) continue;
    if (!node.op->differentiable()) {
      return InvalidArgument(node.name + ": op " + std::string(node.op->name()) +
                             " has no gradient");
    }
    auto outgoing = node.op->Gradient(graph, again ? again->NodeFor(id) : node, incoming);
    if (!outgoing.ok()) return outgoing.status().WithContext(node.name + ": gradient");
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      if ((*outgoing)[i] == kNoValue || !depends[node.inputs[i]]) continue;
      LEPTON_RETURN_IF_ERROR(Accumulate(graph, (*outgoing)[i], gradients[node.inputs[i]]));
    }
  }
  std::vector<ValueId> results;
  for (const ValueId value : with_respect_to) {
    if (gradients[value] == kNoValue) {
      return InvalidArgument("the objective does not depend on " + graph.value(value).name);
    }
    if (graph.type(gradients[value]).dtype != DType::kF32) {
      LEPTON_ASSIGN_OR_RETURN(gradients[value],
                              graph.Add("cast", {gradients[value]}, {{"to", "f32"}}));
    }
    results.push_back(gradients[value]);
  }
  return results;
}

}  // namespace lepton::graph
