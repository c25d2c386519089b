#include "runtime/ops/binary_cross_entropy.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

// The checks that the loss and its gradient share; returns the type of the row losses.
Result<TensorType> BinaryLossType(std::span<const TensorType> inputs,
                                  const Attributes& attributes) {
  LEPTON_RETURN_IF_ERROR(ExpectRank(inputs, 0, DType::kF32, 2));
  LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 1, inputs[0]));
  LEPTON_RETURN_IF_ERROR(attributes.CheckNames({}));
  return TensorType{DType::kF32, Shape({inputs[0].shape[0]})};
}

class BinaryCrossEntropy final : public DifferentiableOp {
 public:
  BinaryCrossEntropy() : DifferentiableOp("binary_cross_entropy") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 2));
    LEPTON_ASSIGN_OR_RETURN(const TensorType loss, BinaryLossType(inputs, attributes));
    return Types{loss};
  }

  // The targets are data: they get no gradient.
  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    LEPTON_ASSIGN_OR_RETURN(
        const ValueId dx,
        graph.Add("binary_cross_entropy_grad",
                  {node.inputs[0], node.inputs[1], output_gradients[0]}, node.attributes));
    return Gradients{dx, kNoValue};
  }
};

class BinaryCrossEntropyGrad final : public OpWithoutGradient {
 public:
  BinaryCrossEntropyGrad() : OpWithoutGradient("binary_cross_entropy_grad") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 3));
    LEPTON_ASSIGN_OR_RETURN(const TensorType loss, BinaryLossType(inputs, attributes));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 2, loss));
    return Types{inputs[0]};
  }
};

}  // namespace

const graph::Op& BinaryCrossEntropyOp() {
  static const BinaryCrossEntropy op;
  return op;
}

const graph::Op& BinaryCrossEntropyGradOp() {
  static const BinaryCrossEntropyGrad op;
  return op;
}

}  // namespace lepton::ops
