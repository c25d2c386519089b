#include "runtime/ops/cross_entropy.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

// The checks that the loss and its gradient share; returns the type of the row losses.
Result<TensorType> ClassLossType(std::span<const TensorType> inputs, const Attributes& attributes) {
  LEPTON_RETURN_IF_ERROR(ExpectRows(inputs, 0, DType::kF32));
  const Shape rows = inputs[0].shape.WithoutAxis(inputs[0].shape.rank() - 1);
  LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 1, {DType::kI32, rows}));
  LEPTON_RETURN_IF_ERROR(attributes.CheckNames({}));
  return TensorType{DType::kF32, rows};
}

class CrossEntropy final : public DifferentiableOp {
 public:
  CrossEntropy() : DifferentiableOp("cross_entropy") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 2));
    LEPTON_ASSIGN_OR_RETURN(const TensorType loss, ClassLossType(inputs, attributes));
    return Types{loss};
  }

  // The targets are data: they get no gradient.
  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    LEPTON_ASSIGN_OR_RETURN(
        const ValueId dx,
        graph.Add("cross_entropy_grad", {node.inputs[0], node.inputs[1], output_gradients[0]},
                  node.attributes));
    return Gradients{dx, kNoValue};
  }
};

class CrossEntropyGrad final : public OpWithoutGradient {
 public:
  CrossEntropyGrad() : OpWithoutGradient("cross_entropy_grad") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 3));
    LEPTON_ASSIGN_OR_RETURN(const TensorType loss, ClassLossType(inputs, attributes));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 2, loss));
    return Types{inputs[0]};
  }
};

}  // namespace

const graph::Op& CrossEntropyOp() {
  static const CrossEntropy op;
  return op;
}

const graph::Op& CrossEntropyGradOp() {
  static const CrossEntropyGrad op;
  return op;
}

}  // namespace lepton::ops
