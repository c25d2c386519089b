#include "runtime/ops/cast.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

class Cast final : public PointwiseOp {
 public:
  Cast() : PointwiseOp("cast") {}

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

  bool cheap_again() const override { return true; }

  // The gradient is rounded where the value was, as PyTorch's autocast does, so that it can be kept
  // in bf16; but not that of a parameter.
  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    ValueId dy = output_gradients[0];
    const ValueId x = node.inputs[0];
    const bool rounds =
        graph.type(x).dtype == DType::kF32 && graph.value(x).kind != graph::ValueKind::kParameter;
    if (rounds) {
      LEPTON_ASSIGN_OR_RETURN(dy, As(graph, dy, DType::kBF16));
    }
    if (graph.type(x).dtype == DType::kF32) {
      LEPTON_ASSIGN_OR_RETURN(dy, As(graph, dy, DType::kF32));
    }
    return Gradients{dy};
  }
};

}  // namespace

const graph::Op& CastOp() {
  static const Cast op;
  return op;
}

}  // namespace lepton::ops
