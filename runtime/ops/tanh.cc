#include "runtime/ops/tanh.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

class Tanh final : public PointwiseOp {
 public:
  Tanh() : PointwiseOp("tanh") {}

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
                            graph.Add("tanh_grad", {node.outputs[0], output_gradients[0]}));
    return Gradients{gradient};
  }
};

}  // namespace

const graph::Op& TanhOp() {
  static const Tanh op;
  return op;
}

const graph::Op& TanhGradOp() {
  static const ElementwiseGradOp op("tanh_grad");
  return op;
}

}  // namespace lepton::ops
