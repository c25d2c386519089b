#include "runtime/ops/softmax.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

class RowwiseOp final : public DifferentiableOp {
 public:
  RowwiseOp(std::string_view name, std::string_view gradient)
      : DifferentiableOp(name), gradient_(gradient) {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 1));
    LEPTON_RETURN_IF_ERROR(ExpectRows(inputs, 0, DType::kF32));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({}));
    return Types{inputs[0]};
  }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    LEPTON_ASSIGN_OR_RETURN(const ValueId dx,
                            graph.Add(gradient_, {node.outputs[0], output_gradients[0]}));
    return Gradients{dx};
  }

 private:
  const std::string_view gradient_;
};

}  // namespace

const graph::Op& SoftmaxOp() {
  static const RowwiseOp op("softmax", "softmax_grad");
  return op;
}

const graph::Op& SoftmaxGradOp() {
  static const ElementwiseGradOp op("softmax_grad");
  return op;
}

const graph::Op& LogSoftmaxOp() {
  static const RowwiseOp op("log_softmax", "log_softmax_grad");
  return op;
}

const graph::Op& LogSoftmaxGradOp() {
  static const ElementwiseGradOp op("log_softmax_grad");
  return op;
}

}  // namespace lepton::ops
