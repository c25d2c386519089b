#include "runtime/ops/sub.h"

#include "runtime/ops/broadcast_to.h"

namespace lepton::ops {
namespace {

class Sub final : public PointwiseOp {
 public:
  Sub() : PointwiseOp("sub") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    return InferBroadcast(inputs, attributes);
  }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    const ValueId dy = output_gradients[0];
    const ValueId by_a = dy;
    LEPTON_ASSIGN_OR_RETURN(const ValueId by_b, graph.Add("scale", {dy}, {{"factor", -1.0}}));
    LEPTON_ASSIGN_OR_RETURN(const ValueId da, SumToShapeOf(graph, by_a, node.inputs[0]));
    LEPTON_ASSIGN_OR_RETURN(const ValueId db, SumToShapeOf(graph, by_b, node.inputs[1]));
    return Gradients{da, db};
  }
};

}  // namespace

const graph::Op& SubOp() {
  static const Sub op;
  return op;
}

}  // namespace lepton::ops
