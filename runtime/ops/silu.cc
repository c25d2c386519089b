#include "runtime/ops/silu.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

class Silu final : public PointwiseOp {
 public:
  Silu() : PointwiseOp("silu") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 1));
    LEPTON_RETURN_IF_ERROR(ExpectFloat(inputs, 0));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({}));
    return Types{inputs[0]};
  }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    LEPTON_ASSIGN_OR_RETURN(const ValueId gradient,
                            graph.Add("silu_grad", {node.inputs[0], output_gradients[0]}));
    return Gradients{gradient};
  }
};

}  // namespace

const graph::Op& SiluOp() {
  static const Silu op;
  return op;
}

const graph::Op& SiluGradOp() {
  static const ElementwiseGradOp op("silu_grad");
  return op;
}

}  // namespace lepton::ops
