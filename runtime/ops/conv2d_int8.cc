#include "runtime/ops/conv2d_int8.h"

#include "runtime/ops/conv2d.h"
#include "runtime/ops/matmul_int8.h"
#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

class Conv2dInt8 final : public OpWithoutGradient {
 public:
  Conv2dInt8() : OpWithoutGradient("conv2d_int8") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 2));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"strides", "pads", "dilations", "groups"}));
    LEPTON_RETURN_IF_ERROR(ExpectFloat(inputs, 0));
    LEPTON_RETURN_IF_ERROR(ExpectRank(inputs, 0, inputs[0].dtype, 4));
    LEPTON_RETURN_IF_ERROR(ExpectRank(inputs, 1, DType::kF32, 4));
    const Shape& weights = inputs[1].shape;
    LEPTON_ASSIGN_OR_RETURN(Shape y, ConvolvedShape(inputs[0].shape, weights, attributes));
    if (const int64_t inner = weights[1] * weights[2] * weights[3]; inner > kInt8MostInner) {
      return InvalidArgument("a window sees " + std::to_string(inner) +
                             " numbers; must be at most " + std::to_string(kInt8MostInner));
    }
    return Types{{DType::kF32, std::move(y)}};
  }
};

}  // namespace

const graph::Op& Conv2dInt8Op() {
  static const Conv2dInt8 op;
  return op;
}

}  // namespace lepton::ops
