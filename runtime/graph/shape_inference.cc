#include "runtime/graph/shape_inference.h"

namespace lepton::graph {
namespace {

bool Fits(const TensorType& declared, const TensorType& given) {
  if (declared.dtype != given.dtype || declared.shape.rank() != given.shape.rank()) return false;
  for (int axis = 0; axis < declared.shape.rank(); ++axis) {
    // Empty only where the declaration says so: an open extent has at least one element.
    if (given.shape[axis] < (declared.shape[axis] == 0 ? 0 : 1)) return false;
    if (declared.shape[axis] >= 0 && declared.shape[axis] != given.shape[axis]) {
      return false;
    }
  }
  return true;
}

}  // namespace

std::vector<TensorType> InputTypesForBatch(const Graph& graph, int64_t batch, int64_t sequence) {
  std::vector<TensorType> types;
  for (const Value& value : graph.values()) {
    if (value.kind != ValueKind::kInput) continue;
    types.push_back({value.type.dtype, value.type.shape.WithBatch(batch, sequence)});
  }
  return types;
}

Result<std::vector<TensorType>> InferTypes(const Graph& graph, std::span<const TensorType> inputs) {
  std::vector<TensorType> types(graph.values().size());
  size_t next = 0;
  for (size_t i = 0; i < types.size(); ++i) {
    const Value& value = graph.values()[i];
    types[i] = value.type;
    if (value.kind != ValueKind::kInput) continue;
    if (next >= inputs.size()) return InvalidArgument("no shape given for input " + value.name);
    if (!Fits(value.type, inputs[next])) {
      return InvalidArgument("input " + value.name + " is " + inputs[next].ToString() +
                             "; must be " + value.type.ToString());
    }
    types[i] = inputs[next++];
  }
  for (const Node& node : graph.nodes()) {
    std::vector<TensorType> arguments;
    for (const ValueId input : node.inputs) arguments.push_back(types[input]);
    auto outputs = node.op->Infer(arguments, node.attributes);
    if (!outputs.ok()) return outputs.status().WithContext(node.name);
    for (size_t i = 0; i < node.outputs.size(); ++i) types[node.outputs[i]] = (*outputs)[i];
  }
  return types;
}

}  // namespace lepton::graph
