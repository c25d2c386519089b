#include "runtime/ops/linear_cross_entropy.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

// The checks that the loss and its gradient share; returns the type of the row losses.
Result<TensorType> RowLossType(std::span<const TensorType> inputs, const Attributes& attributes) {
  LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"transpose_b", "piece_bytes"}));
  LEPTON_RETURN_IF_ERROR(ExpectFloat(inputs, 0));
  LEPTON_RETURN_IF_ERROR(ExpectRows(inputs, 0, inputs[0].dtype));
  const bool rounded = inputs[0].dtype == DType::kBF16 && inputs[1].dtype == DType::kF32;
  LEPTON_RETURN_IF_ERROR(ExpectRank(inputs, 1, rounded ? DType::kF32 : inputs[0].dtype, 2));
  const int64_t width = inputs[1].shape[attributes.Int("transpose_b") != 0 ? 1 : 0];
  if (width != inputs[0].shape.back()) {
    return InvalidArgument("inner extents differ: " + inputs[0].shape.ToString() + " times " +
                           inputs[1].shape.ToString());
  }
  const Shape rows = inputs[0].shape.WithoutAxis(inputs[0].shape.rank() - 1);
  LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 2, {DType::kI32, rows}));
  return TensorType{DType::kF32, rows};
}

class LinearCrossEntropy final : public DifferentiableOp {
 public:
  LinearCrossEntropy() : DifferentiableOp("linear_cross_entropy") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 3));
    LEPTON_ASSIGN_OR_RETURN(const TensorType loss, RowLossType(inputs, attributes));
    return Types{loss, loss, loss};
  }

  // The targets are data: they get no gradient.
  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    if (output_gradients[1] != kNoValue || output_gradients[2] != kNoValue) {
      return InvalidArgument("tops and sums cannot be differentiated");
    }
    LEPTON_ASSIGN_OR_RETURN(Gradients gradients,
                            graph.AddNode("linear_cross_entropy_grad",
                                          {node.inputs[0], node.inputs[1], node.inputs[2],
                                           node.outputs[1], node.outputs[2], output_gradients[0]},
                                          node.attributes));
    gradients.push_back(kNoValue);
    return gradients;
  }
};

class LinearCrossEntropyGrad final : public OpWithoutGradient {
 public:
  LinearCrossEntropyGrad() : OpWithoutGradient("linear_cross_entropy_grad") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 6));
    LEPTON_ASSIGN_OR_RETURN(const TensorType loss, RowLossType(inputs, attributes));
    for (const size_t i : {3, 4, 5}) LEPTON_RETURN_IF_ERROR(ExpectType(inputs, i, loss));
    return Types{{DType::kF32, inputs[0].shape}, {DType::kF32, inputs[1].shape}};
  }
};

}  // namespace

const graph::Op& LinearCrossEntropyOp() {
  static const LinearCrossEntropy op;
  return op;
}

const graph::Op& LinearCrossEntropyGradOp() {
  static const LinearCrossEntropyGrad op;
  return op;
}

}  // namespace lepton::ops
