#include "runtime/ops/relu.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

class Relu final : public PointwiseOp {
 public:
  Relu() : PointwiseOp("relu") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 1));
    LEPTON_RETURN_IF_ERROR(ExpectFloat(inputs, 0));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({}));
    return Types{inputs[0]};
  }

  bool cheap_again() const override { return true; }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    LEPTON_ASSIGN_OR_RETURN(const ValueId gradient,
                            graph.Add("relu_grad", {node.outputs[0], output_gradients[0]}));
    return Gradients{gradient};
  }
};

}  // namespace

const graph::Op& ReluOp() {
  static const Relu op;
  return op;
}

const graph::Op& ReluGradOp() {
  static const ElementwiseGradOp op("relu_grad");
  return op;
}

}  // namespace lepton::ops
