#include "runtime/ops/mul.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

class Mul final : public DifferentiableOp {
 public:
  Mul() : DifferentiableOp("mul") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 2));
    LEPTON_RETURN_IF_ERROR(ExpectDType(inputs, 0, DType::kF32));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 1, inputs[0]));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({}));
    return Types{inputs[0]};
  }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    const ValueId dy = output_gradients[0];
    LEPTON_ASSIGN_OR_RETURN(const ValueId da, graph.Add("mul", {dy, node.inputs[1]}));
    LEPTON_ASSIGN_OR_RETURN(const ValueId db, graph.Add("mul", {dy, node.inputs[0]}));
    return Gradients{da, db};
  }
};

}  // namespace

const graph::Op& MulOp() {
  static const Mul op;
  return op;
}

}  // namespace lepton::ops
