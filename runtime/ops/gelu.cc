#include "runtime/ops/gelu.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

class Gelu final : public PointwiseOp {
 public:
  Gelu(std::string_view name, std::string_view gradient) : PointwiseOp(name), gradient_(gradient) {}

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
                            graph.Add(gradient_, {node.inputs[0], output_gradients[0]}));
    return Gradients{gradient};
  }

 private:
  const std::string_view gradient_;
};

}  // namespace

const graph::Op& GeluOp() {
  static const Gelu op("gelu", "gelu_grad");
  return op;
}

const graph::Op& GeluGradOp() {
  static const ElementwiseGradOp op("gelu_grad");
  return op;
}

const graph::Op& GeluTanhOp() {
  static const Gelu op("gelu_tanh", "gelu_tanh_grad");
  return op;
}

const graph::Op& GeluTanhGradOp() {
  static const ElementwiseGradOp op("gelu_tanh_grad");
  return op;
}

}  // namespace lepton::ops
