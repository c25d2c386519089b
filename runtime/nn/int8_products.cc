#include "runtime/nn/int8_products.h"

#include "runtime/ops/matmul_int8.h"

namespace lepton::nn {
namespace {

using graph::Graph;
using graph::Node;

// Of f32, and with a right side that is packed once.
bool HasWeights(const Graph& graph, const Node& node) {
  if (node.inputs.size() != 2) return false;
  const graph::Value& weights = graph.value(node.inputs[1]);
  return weights.kind == graph::ValueKind::kParameter && weights.type.dtype == DType::kF32 &&
         graph.type(node.inputs[0]).dtype == DType::kF32;
}

// Numbers of the weights that go into one number of the result.
int64_t Inner(const Graph& graph, const Node& node) {
  const Shape& weights = graph.type(node.inputs[1]).shape;
  if (node.op->name() == "matmul") {
    return weights[node.attributes.Int("transpose_b") != 0 ? 1 : 0];
  }
  return weights.elements() / weights[0];
}

bool CanQuantize(const Graph& graph, const Node& node) {
  const std::string_view op = node.op->name();
  if ((op != "matmul" && op != "conv2d") || !HasWeights(graph, node)) return false;
  if (op == "matmul" && node.attributes.Int("transpose_a") != 0) return false;
  if (op == "conv2d" && node.attributes.Int("groups", 1) != 1) return false;
  return Inner(graph, node) <= ops::kInt8MostInner;
}

}  // namespace

Result<int> QuantizeProducts(Graph& graph) {
  int replaced = 0;
  for (graph::NodeId id = 0; id < static_cast<graph::NodeId>(graph.nodes().size()); ++id) {
    const Node& node = graph.nodes()[id];
    if (!CanQuantize(graph, node)) continue;
    const bool product = node.op->name() == "matmul";
    graph::Attributes attributes = node.attributes;
    if (product) {
      attributes = {{"transpose_b", node.attributes.Int("transpose_b")}};
    }
    LEPTON_RETURN_IF_ERROR(
        graph.ReplaceOp(id, product ? "matmul_int8" : "conv2d_int8", std::move(attributes)));
    ++replaced;
  }
  return replaced;
}

}  // namespace lepton::nn
