#include "runtime/ops/attention.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

// Checks q, k, v and the key bias at `bias_index`, if there is such an input.
Status CheckAttention(std::span<const TensorType> inputs, size_t bias_index,
                      const Attributes& attributes) {
  for (size_t i = 0; i < 3; ++i) LEPTON_RETURN_IF_ERROR(ExpectRank(inputs, i, DType::kF32, 4));
  LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"scale", "causal", "window"}));
  const Shape& q = inputs[0].shape;
  const Shape& k = inputs[1].shape;
  LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 2, inputs[1]));
  for (int axis = 1; axis < 4; ++axis) {
    if (q[axis] < 1 || k[axis] < 1) {
      return InvalidArgument("only the first axis of q and k may be open");
    }
  }
  if (k[0] != q[0] || k[3] != q[3] || q[1] % k[1] != 0) {
    return InvalidArgument("keys " + k.ToString() + " do not fit queries " + q.ToString() +
                           ": same batch and size, and a divisor of the heads");
  }
  const bool causal = attributes.Int("causal") != 0;
  if (causal && k[2] < q[2]) {
    return InvalidArgument("causal: " + std::to_string(q[2]) + " queries need as many keys, not " +
                           std::to_string(k[2]));
  }
  const int64_t window = attributes.Int("window");
  if (window < 0 || (window > 0 && !causal)) {
    return InvalidArgument("window must be 0, or positive with causal 1");
  }
  if (bias_index >= inputs.size()) return Status::Ok();
  return ExpectType(inputs, bias_index, {DType::kF32, Shape({q[0], k[2]})});
}

TensorType LogSums(const Shape& q) {
  return {DType::kF32, q.WithoutAxis(3)};
}

class Attention final : public DifferentiableOp {
 public:
  Attention() : DifferentiableOp("attention") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    if (inputs.size() != 4) LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 3));
    LEPTON_RETURN_IF_ERROR(CheckAttention(inputs, 3, attributes));
    return Types{inputs[0], LogSums(inputs[0].shape)};
  }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    if (output_gradients[1] != kNoValue) {
      return InvalidArgument("the saved logarithms cannot be differentiated");
    }
    std::vector<ValueId> inputs = {node.inputs[0],  node.inputs[1],  node.inputs[2],
                                   node.outputs[0], node.outputs[1], output_gradients[0]};
    if (node.inputs.size() == 4) inputs.push_back(node.inputs[3]);
    LEPTON_ASSIGN_OR_RETURN(Gradients gradients,
                            graph.AddNode("attention_grad", inputs, node.attributes));
    gradients.resize(node.inputs.size(), kNoValue);
    return gradients;
  }
};

class AttentionGrad final : public OpWithoutGradient {
 public:
  AttentionGrad() : OpWithoutGradient("attention_grad") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    if (inputs.size() != 7) LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 6));
    LEPTON_RETURN_IF_ERROR(CheckAttention(inputs, 6, attributes));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 3, inputs[0]));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 4, LogSums(inputs[0].shape)));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 5, inputs[0]));
    return Types{inputs[0], inputs[1], inputs[2]};
  }
};

}  // namespace

const graph::Op& AttentionOp() {
  static const Attention op;
  return op;
}

const graph::Op& AttentionGradOp() {
  static const AttentionGrad op;
  return op;
}

}  // namespace lepton::ops
