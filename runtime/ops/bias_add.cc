#include "runtime/ops/bias_add.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

class BiasAdd final : public PointwiseOp {
 public:
  BiasAdd() : PointwiseOp("bias_add") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 2));
    LEPTON_RETURN_IF_ERROR(ExpectRows(inputs, 0, DType::kF32));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 1, {DType::kF32, Shape({inputs[0].shape.back()})}));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({}));
    return Types{inputs[0]};
  }

  Result<Gradients> Gradient(Graph& graph, const Node&,
                             std::span<const ValueId> output_gradients) const override {
    const ValueId dy = output_gradients[0];
    LEPTON_ASSIGN_OR_RETURN(const ValueId bias, graph.Add("sum_rows", {Unwidened(graph, dy)}));
    return Gradients{dy, bias};
  }
};

}  // namespace

const graph::Op& BiasAddOp() {
  static const BiasAdd op;
  return op;
}

}  // namespace lepton::ops
