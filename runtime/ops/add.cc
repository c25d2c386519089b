#include "runtime/ops/add.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

class Add final : public DifferentiableOp {
 public:
  Add() : DifferentiableOp("add") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 2));
    LEPTON_RETURN_IF_ERROR(ExpectDType(inputs, 0, DType::kF32));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 1, inputs[0]));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({}));
    return Types{inputs[0]};
  }

  Result<Gradients> Gradient(Graph&, const Node&,
                             std::span<const ValueId> output_gradients) const override {
    return Gradients{output_gradients[0], output_gradients[0]};
  }
};

}  // namespace

const graph::Op& AddOp() {
  static const Add op;
  return op;
}

}  // namespace lepton::ops
