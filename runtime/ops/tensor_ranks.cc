#include "runtime/ops/tensor_ranks.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

Result<Types> SameF32(std::span<const TensorType> inputs, const Attributes& attributes) {
  LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 1));
  LEPTON_RETURN_IF_ERROR(ExpectDType(inputs, 0, DType::kF32));
  LEPTON_RETURN_IF_ERROR(attributes.CheckNames({}));
  return Types{inputs[0]};
}

class TensorCopy final : public DifferentiableOp {
 public:
  TensorCopy() : DifferentiableOp("tensor_copy") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    return SameF32(inputs, attributes);
  }

  Result<Gradients> Gradient(Graph& graph, const Node&,
                             std::span<const ValueId> output_gradients) const override {
    LEPTON_ASSIGN_OR_RETURN(const ValueId dx, graph.Add("tensor_sum", {output_gradients[0]}));
    return Gradients{dx};
  }
};

class TensorSum final : public DifferentiableOp {
 public:
  TensorSum() : DifferentiableOp("tensor_sum") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    return SameF32(inputs, attributes);
  }

  Result<Gradients> Gradient(Graph&, const Node&,
                             std::span<const ValueId> output_gradients) const override {
    return Gradients{output_gradients[0]};
  }
};

}  // namespace

const graph::Op& TensorCopyOp() {
  static const TensorCopy op;
  return op;
}

const graph::Op& TensorSumOp() {
  static const TensorSum op;
  return op;
}

}  // namespace lepton::ops
