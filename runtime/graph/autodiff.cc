#include "runtime/graph/autodiff.h"

#include <algorithm>
#include <optional>

#include "runtime/graph/recomputation.h"

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

}  // namespace

Result<std::vector<ValueId>> AddGradients(Graph& graph, ValueId objective,
                                          std::span<const ValueId> with_respect_to,
                                          const GradientOptions& options) {
  graph.EndBlock();
  const NodeId last = graph.value(objective).producer;
  std::optional<BlockRecomputation> blocks;
  std::optional<CheapRecomputation> cheap;
  if (options.recompute_blocks) {
    blocks.emplace(graph, last);
  } else if (options.recompute_cheap) {
    // What gradients read is seen where they are added: on a copy first.
    Graph trial = graph;
    const NodeId end = static_cast<NodeId>(graph.nodes().size()) - 1;
    LEPTON_ASSIGN_OR_RETURN(const std::vector<ValueId> results,
                            AddGradients(trial, objective, with_respect_to));
    cheap.emplace(graph, last, ReadByGradients(trial, end, results));
  }
  const auto node_for = [&](NodeId id) -> Result<Node> {
    if (blocks) return blocks->NodeFor(id);
    return cheap ? cheap->NodeFor(id) : Result<Node>(graph.nodes()[id]);
  };

  const std::vector<bool> depends = DependsOn(graph, with_respect_to);
  std::vector<ValueId> gradients(graph.values().size(), kNoValue);
  LEPTON_ASSIGN_OR_RETURN(gradients[objective],
                          graph.Add("fill", {objective}, {{"value", 1.0}}, "gradient/seed"));
  for (NodeId id = last; id >= 0; --id) {
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
    LEPTON_ASSIGN_OR_RETURN(const Node seen, node_for(id));
    auto outgoing = node.op->Gradient(graph, seen, incoming);
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
