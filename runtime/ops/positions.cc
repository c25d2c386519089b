#include "runtime/ops/positions.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

class Positions final : public OpWithoutGradient {
 public:
  Positions() : OpWithoutGradient("positions") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 1));
    LEPTON_RETURN_IF_ERROR(ExpectDType(inputs, 0, DType::kI32));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"offset", "limit"}));
    if (inputs[0].shape.rank() < 1) return InvalidArgument("tokens must have at least one axis");
    const int64_t offset = attributes.Int("offset");
    const int64_t limit = attributes.Int("limit");
    const int64_t tokens = inputs[0].shape.back();
    if (offset < 0 || limit < 0) return InvalidArgument("offset and limit must not be negative");
    if (limit > 0 && tokens > limit - offset) {
      return InvalidArgument("the text has " + std::to_string(tokens) +
                             " tokens; the model has positions for " +
                             std::to_string(limit - offset));
    }
    return Types{{DType::kI32, Shape({tokens})}};
  }
};

}  // namespace

const graph::Op& PositionsOp() {
  static const Positions op;
  return op;
}

}  // namespace lepton::ops
