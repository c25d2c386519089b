#include "runtime/ops/layer_norm.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

class LayerNorm final : public DifferentiableOp {
 public:
  LayerNorm() : DifferentiableOp("layer_norm") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 3));
    LEPTON_RETURN_IF_ERROR(ExpectRows(inputs, 0, DType::kF32));
    const TensorType row{DType::kF32, Shape({inputs[0].shape.back()})};
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 1, row));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 2, row));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"epsilon"}));
    const TensorType statistic{DType::kF32,
                               inputs[0].shape.WithoutAxis(inputs[0].shape.rank() - 1)};
    return Types{inputs[0], statistic, statistic};
  }

  bool cheap_again() const override { return true; }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    if (output_gradients[1] != kNoValue || output_gradients[2] != kNoValue) {
      return InvalidArgument("the saved statistics cannot be differentiated");
    }
    return graph.AddNode("layer_norm_grad",
                         {node.inputs[0], node.inputs[1], node.outputs[1], node.outputs[2],
                          Unwidened(graph, output_gradients[0])});
  }
};

class LayerNormGrad final : public OpWithoutGradient {
 public:
  LayerNormGrad() : OpWithoutGradient("layer_norm_grad") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 5));
    LEPTON_RETURN_IF_ERROR(ExpectRows(inputs, 0, DType::kF32));
    const TensorType row{DType::kF32, Shape({inputs[0].shape.back()})};
    const TensorType statistic{DType::kF32,
                               inputs[0].shape.WithoutAxis(inputs[0].shape.rank() - 1)};
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 1, row));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 2, statistic));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 3, statistic));
    LEPTON_RETURN_IF_ERROR(ExpectFloat(inputs, 4));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 4, {inputs[4].dtype, inputs[0].shape}));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({}));
    return Types{inputs[0], row, row};
  }
};

}  // namespace

const graph::Op& LayerNormOp() {
  static const LayerNorm op;
  return op;
}

const graph::Op& LayerNormGradOp() {
  static const LayerNormGrad op;
  return op;
}

}  // namespace lepton::ops
