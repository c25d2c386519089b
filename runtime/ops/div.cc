#include "runtime/ops/div.h"

#include "runtime/ops/broadcast_to.h"

namespace lepton::ops {
namespace {

class Div final : public PointwiseOp {
 public:
  Div() : PointwiseOp("div") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    return InferBroadcast(inputs, attributes);
  }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    LEPTON_ASSIGN_OR_RETURN(const ValueId dy, GradientLike(graph, output_gradients[0], node));
    // d(a / b) = da / b - (a / b) / b db.
    LEPTON_ASSIGN_OR_RETURN(const ValueId by_a, graph.Add("div", {dy, node.inputs[1]}));
    LEPTON_ASSIGN_OR_RETURN(const ValueId product, graph.Add("mul", {by_a, node.outputs[0]}));
    LEPTON_ASSIGN_OR_RETURN(const ValueId by_b, graph.Add("scale", {product}, {{"factor", -1.0}}));
    LEPTON_ASSIGN_OR_RETURN(const ValueId da, SumToShapeOf(graph, by_a, node.inputs[0]));
    LEPTON_ASSIGN_OR_RETURN(const ValueId db, SumToShapeOf(graph, by_b, node.inputs[1]));
    return Gradients{da, db};
  }
};

}  // namespace

const graph::Op& DivOp() {
  static const Div op;
  return op;
}

}  // namespace lepton::ops
