#include "runtime/ops/fill.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

class Fill final : public OpWithoutGradient {
 public:
  Fill() : OpWithoutGradient("fill") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 1));
    LEPTON_RETURN_IF_ERROR(ExpectDType(inputs, 0, DType::kF32));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"value"}));
    return Types{inputs[0]};
  }
};

}  // namespace

const graph::Op& FillOp() {
  static const Fill op;
  return op;
}

}  // namespace lepton::ops
