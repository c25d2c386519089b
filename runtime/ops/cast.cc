#include "runtime/ops/cast.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

class Cast final : public DifferentiableOp {
 public:
  Cast() : DifferentiableOp("cast") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 1));
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"to"}));
    const std::string to = attributes.Text("to");
    if (to != "f32" && to != "bf16") {
      return InvalidArgument("to is '" + to + "'; must be f32 or bf16");
    }
    const bool narrow = to == "bf16";
    LEPTON_RETURN_IF_ERROR(ExpectDType(inputs, 0, narrow ? DType::kF32 : DType::kBF16));
    return Types{{narrow ? DType::kBF16 : DType::kF32, inputs[0].shape}};
  }

  Result<Gradients> Gradient(Graph&, const Node&,
                             std::span<const ValueId> output_gradients) const override {
    return Gradients{output_gradients[0]};
  }
};

}  // namespace

const graph::Op& CastOp() {
  static const Cast op;
  return op;
}

}  // namespace lepton::ops
