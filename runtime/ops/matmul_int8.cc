#include "runtime/ops/matmul_int8.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

class MatmulInt8 final : public OpWithoutGradient {
 public:
  MatmulInt8() : OpWithoutGradient("matmul_int8") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 2));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"transpose_b"}));
    LEPTON_RETURN_IF_ERROR(ExpectFloat(inputs, 0));
    LEPTON_RETURN_IF_ERROR(ExpectRows(inputs, 0, inputs[0].dtype));
    LEPTON_RETURN_IF_ERROR(ExpectRank(inputs, 1, DType::kF32, 2));
    const bool turned = attributes.Int("transpose_b") != 0;
    const Shape& x = inputs[0].shape;
    const Shape& w = inputs[1].shape;
    if (x.back() != w[turned ? 1 : 0]) {
      return InvalidArgument("inner extents differ: " + x.ToString() + " times " + w.ToString() +
                             (turned ? " transposed" : ""));
    }
    if (x.back() > kInt8MostInner) {
      return InvalidArgument("the inner extent is " + std::to_string(x.back()) +
                             "; must be at most " + std::to_string(kInt8MostInner));
    }
    std::vector<int64_t> extents = x.WithoutAxis(x.rank() - 1).extents();
    extents.push_back(w[turned ? 0 : 1]);
    return Types{{DType::kF32, Shape(std::move(extents))}};
  }
};

}  // namespace

const graph::Op& MatmulInt8Op() {
  static const MatmulInt8 op;
  return op;
}

}  // namespace lepton::ops
