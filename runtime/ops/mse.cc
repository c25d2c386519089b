#include "runtime/ops/mse.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

// The checks that the loss and its gradient share; returns the type of the row losses.
Result<TensorType> SquaredLossType(std::span<const TensorType> inputs,
                                   const Attributes& attributes) {
  LEPTON_RETURN_IF_ERROR(ExpectRank(inputs, 0, DType::kF32, 2));
  LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 1, inputs[0]));
  LEPTON_RETURN_IF_ERROR(attributes.CheckNames({}));
  return TensorType{DType::kF32, Shape({inputs[0].shape[0]})};
}

class MeanSquaredError final : public DifferentiableOp {
 public:
  MeanSquaredError() : DifferentiableOp("mse") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 2));
    LEPTON_ASSIGN_OR_RETURN(const TensorType loss, SquaredLossType(inputs, attributes));
    return Types{loss};
  }

  // The targets are data: they get no gradient.
  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    LEPTON_ASSIGN_OR_RETURN(
        const ValueId dx,
        graph.Add("mse_grad", {node.inputs[0], node.inputs[1], output_gradients[0]},
                  node.attributes));
    return Gradients{dx, kNoValue};
  }
};

class MeanSquaredErrorGrad final : public OpWithoutGradient {
 public:
  MeanSquaredErrorGrad() : OpWithoutGradient("mse_grad") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 3));
    LEPTON_ASSIGN_OR_RETURN(const TensorType loss, SquaredLossType(inputs, attributes));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 2, loss));
    return Types{inputs[0]};
  }
};

}  // namespace

const graph::Op& MeanSquaredErrorOp() {
  static const MeanSquaredError op;
  return op;
}

const graph::Op& MeanSquaredErrorGradOp() {
  static const MeanSquaredErrorGrad op;
  return op;
}

}  // namespace lepton::ops
