#include "runtime/ops/distillation.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

// The checks that the loss and its gradient share; returns the type of the row losses.
Result<TensorType> DistillationLossType(std::span<const TensorType> inputs,
                                        const Attributes& attributes) {
  LEPTON_RETURN_IF_ERROR(ExpectRank(inputs, 0, DType::kF32, 2));
  LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 1, inputs[0]));
  LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"temperature"}));
  return TensorType{DType::kF32, Shape({inputs[0].shape[0]})};
}

class Distillation final : public DifferentiableOp {
 public:
  Distillation() : DifferentiableOp("distillation") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 2));
    LEPTON_ASSIGN_OR_RETURN(const TensorType loss, DistillationLossType(inputs, attributes));
    return Types{loss};
  }

  // The targets are data: they get no gradient.
  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    LEPTON_ASSIGN_OR_RETURN(
        const ValueId dx,
        graph.Add("distillation_grad", {node.inputs[0], node.inputs[1], output_gradients[0]},
                  node.attributes));
    return Gradients{dx, kNoValue};
  }
};

class DistillationGrad final : public OpWithoutGradient {
 public:
  DistillationGrad() : OpWithoutGradient("distillation_grad") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 3));
    LEPTON_ASSIGN_OR_RETURN(const TensorType loss, DistillationLossType(inputs, attributes));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 2, loss));
    return Types{inputs[0]};
  }
};

}  // namespace

const graph::Op& DistillationOp() {
  static const Distillation op;
  return op;
}

const graph::Op& DistillationGradOp() {
  static const DistillationGrad op;
  return op;
}

}  // namespace lepton::ops
