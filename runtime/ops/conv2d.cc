#include "runtime/ops/conv2d.h"

#include "runtime/ops/op_base.h"
#include "runtime/ops/window.h"

namespace lepton::ops {

Result<Shape> ConvolvedShape(const Shape& x, const Shape& weights, const Attributes& attributes) {
  const int64_t groups = attributes.Int("groups", 1);
  if (groups < 1 || weights[0] < 1 || weights[0] % groups != 0 || x[1] < 1 ||
      x[1] != weights[1] * groups) {
    return InvalidArgument("weights " + weights.ToString() + " in " + std::to_string(groups) +
                           " groups do not fit the channels of " + x.ToString());
  }
  LEPTON_RETURN_IF_ERROR(CheckWindow(weights[2], weights[3], x, attributes));
  const Window window = MakeWindow(weights[2], weights[3], attributes);
  return Shape({x[0], weights[0], window.h.Outputs(x[2]), window.w.Outputs(x[3])});
}

namespace {

// The type of y. The first two inputs are of one float type; `like` one only tells its shape.
Result<TensorType> Convolved(std::span<const TensorType> inputs, size_t x_index,
                             size_t weights_index, const Attributes& attributes) {
  LEPTON_RETURN_IF_ERROR(ExpectFloat(inputs, 0));
  for (const size_t i : {x_index, weights_index}) {
    LEPTON_RETURN_IF_ERROR(ExpectFloat(inputs, i));
    LEPTON_RETURN_IF_ERROR(ExpectRank(inputs, i, i < 2 ? inputs[0].dtype : inputs[i].dtype, 4));
  }
  LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"strides", "pads", "dilations", "groups"}));
  LEPTON_ASSIGN_OR_RETURN(
      Shape y, ConvolvedShape(inputs[x_index].shape, inputs[weights_index].shape, attributes));
  return TensorType{DType::kF32, std::move(y)};
}

class Conv2d final : public DifferentiableOp {
 public:
  Conv2d() : DifferentiableOp("conv2d") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 2));
    LEPTON_ASSIGN_OR_RETURN(TensorType y, Convolved(inputs, 0, 1, attributes));
    return Types{std::move(y)};
  }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    const ValueId x = node.inputs[0];
    const ValueId weights = node.inputs[1];
    LEPTON_ASSIGN_OR_RETURN(const ValueId dy, As(graph, output_gradients[0], graph.type(x).dtype));
    LEPTON_ASSIGN_OR_RETURN(const ValueId dx,
                            graph.Add("conv2d_input_grad", {dy, weights, x}, node.attributes));
    LEPTON_ASSIGN_OR_RETURN(const ValueId dweights,
                            graph.Add("conv2d_weight_grad", {dy, x, weights}, node.attributes));
    return Gradients{dx, dweights};
  }
};

class Conv2dInputGrad final : public OpWithoutGradient {
 public:
  Conv2dInputGrad() : OpWithoutGradient("conv2d_input_grad") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 3));
    LEPTON_ASSIGN_OR_RETURN(const TensorType y, Convolved(inputs, 2, 1, attributes));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 0, {inputs[0].dtype, y.shape}));
    return Types{{DType::kF32, inputs[2].shape}};
  }
};

class Conv2dWeightGrad final : public OpWithoutGradient {
 public:
  Conv2dWeightGrad() : OpWithoutGradient("conv2d_weight_grad") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 3));
    LEPTON_ASSIGN_OR_RETURN(const TensorType y, Convolved(inputs, 1, 2, attributes));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 0, {inputs[0].dtype, y.shape}));
    return Types{{DType::kF32, inputs[2].shape}};
  }
};

}  // namespace

const graph::Op& Conv2dOp() {
  static const Conv2d op;
  return op;
}

const graph::Op& Conv2dInputGradOp() {
  static const Conv2dInputGrad op;
  return op;
}

const graph::Op& Conv2dWeightGradOp() {
  static const Conv2dWeightGrad op;
  return op;
}

}  // namespace lepton::ops
