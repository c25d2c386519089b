#include "runtime/ops/sum_rows.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

class SumRows final : public OpWithoutGradient {
 public:
  SumRows() : OpWithoutGradient("sum_rows") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 1));
    LEPTON_RETURN_IF_ERROR(ExpectFloat(inputs, 0));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({}));
    if (inputs[0].shape.rank() < 1 || inputs[0].shape.back() < 0) {
      return InvalidArgument("the last axis of " + inputs[0].shape.ToString() +
                             " must be there and not open");
    }
    return Types{{DType::kF32, Shape({inputs[0].shape.back()})}};
  }
};

}  // namespace

const graph::Op& SumRowsOp() {
  static const SumRows op;
  return op;
}

}  // namespace lepton::ops
