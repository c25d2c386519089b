#include "runtime/ops/rms_norm.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

class RmsNorm final : public DifferentiableOp {
 public:
  RmsNorm() : DifferentiableOp("rms_norm") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 2));
    LEPTON_RETURN_IF_ERROR(ExpectRows(inputs, 0, DType::kF32));
    const Shape& x = inputs[0].shape;
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 1, {DType::kF32, Shape({x.back()})}));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"epsilon"}));
    return Types{inputs[0], {DType::kF32, x.WithoutAxis(x.rank() - 1)}};
  }

  bool cheap_again() const override { return true; }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    if (output_gradients[1] != kNoValue) {
      return InvalidArgument("the saved factor cannot be differentiated");
    }
    return graph.AddNode("rms_norm_grad", {node.inputs[0], node.inputs[1], node.outputs[1],
                                           Unwidened(graph, output_gradients[0])});
  }
};

class RmsNormGrad final : public OpWithoutGradient {
 public:
  RmsNormGrad() : OpWithoutGradient("rms_norm_grad") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 4));
    LEPTON_RETURN_IF_ERROR(ExpectRows(inputs, 0, DType::kF32));
    const Shape& x = inputs[0].shape;
    const TensorType gain{DType::kF32, Shape({x.back()})};
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 1, gain));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 2, {DType::kF32, x.WithoutAxis(x.rank() - 1)}));
    LEPTON_RETURN_IF_ERROR(ExpectFloat(inputs, 3));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 3, {inputs[3].dtype, inputs[0].shape}));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({}));
    return Types{inputs[0], gain};
  }
};

}  // namespace

const graph::Op& RmsNormOp() {
  static const RmsNorm op;
  return op;
}

const graph::Op& RmsNormGradOp() {
  static const RmsNormGrad op;
  return op;
}

}  // namespace lepton::ops
