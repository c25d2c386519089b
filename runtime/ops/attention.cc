#include "runtime/ops/attention.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

// Checks q, k, v and the key bias at `bias_index`, if there is such an input.
Status CheckAttention(std::span<const TensorType> inputs, size_t bias_index,
                      const Attributes& attributes) {
  LEPTON_RETURN_IF_ERROR(ExpectFloat(inputs, 0));
  for (size_t i = 0; i < 3; ++i) {
    LEPTON_RETURN_IF_ERROR(ExpectRank(inputs, i, inputs[0].dtype, 3));
  }
  LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"heads", "kv_heads", "scale", "causal", "window"}));
  const Shape& q = inputs[0].shape;
  const Shape& k = inputs[1].shape;
  LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 2, inputs[1]));
  const int64_t heads = attributes.Int("heads", 1);
  const int64_t kv_heads = attributes.Int("kv_heads", heads);
  if (heads < 1 || kv_heads < 1 || heads % kv_heads != 0) {
    return InvalidArgument("heads is " + std::to_string(heads) +
                           "; must be a multiple of kv_heads, " + std::to_string(kv_heads));
  }
  if (q[2] < 1 || q[2] % heads != 0) {
    return InvalidArgument("the last axis of q " + q.ToString() + " must be a multiple of heads, " +
                           std::to_string(heads));
  }
  if (k[0] != q[0] || k[2] != q[2] / heads * kv_heads) {
    return InvalidArgument("keys " + k.ToString() + " do not fit queries " + q.ToString() +
                           ": same batch, and kv_heads times the size of a head");
  }
  const bool causal = attributes.Int("causal") != 0;
  const bool open = q[1] < 0 || k[1] < 0;
  if (causal && (open ? k[1] != q[1] : k[1] < q[1])) {
    return InvalidArgument("causal: queries " + q.ToString() + " need as many keys, not " +
                           k.ToString());
  }
  const int64_t window = attributes.Int("window");
  if (window < 0 || (window > 0 && !causal)) {
    return InvalidArgument("window must be 0, or positive with causal 1");
  }
  if (bias_index >= inputs.size()) return Status::Ok();
  return ExpectType(inputs, bias_index, {DType::kF32, Shape({q[0], k[1]})});
}

TensorType LogSums(const Shape& q, const Attributes& attributes) {
  return {DType::kF32, Shape({q[0], attributes.Int("heads", 1), q[1]})};
}

class Attention final : public DifferentiableOp {
 public:
  Attention() : DifferentiableOp("attention") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    if (inputs.size() != 4) LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 3));
    LEPTON_RETURN_IF_ERROR(CheckAttention(inputs, 3, attributes));
    return Types{inputs[0], LogSums(inputs[0].shape, attributes)};
  }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    if (output_gradients[1] != kNoValue) {
      return InvalidArgument("the saved logarithms cannot be differentiated");
    }
    LEPTON_ASSIGN_OR_RETURN(const ValueId dy,
                            As(graph, output_gradients[0], graph.type(node.inputs[0]).dtype));
    std::vector<ValueId> inputs = {node.inputs[0],  node.inputs[1],  node.inputs[2],
                                   node.outputs[0], node.outputs[1], dy};
    if (node.inputs.size() == 4) inputs.push_back(node.inputs[3]);
    LEPTON_ASSIGN_OR_RETURN(Gradients gradients,
                            graph.AddNode("attention_grad", inputs, node.attributes));
    gradients.resize(node.inputs.size(), kNoValue);
    return gradients;
  }
};

// The inputs that attention would have for these of packed_attention.
Result<Types> Unpacked(std::span<const TensorType> inputs, size_t bias_index,
                       const Attributes& attributes) {
  LEPTON_RETURN_IF_ERROR(ExpectFloat(inputs, 0));
  LEPTON_RETURN_IF_ERROR(ExpectRank(inputs, 0, inputs[0].dtype, 3));
  const Shape& qkv = inputs[0].shape;
  const int64_t heads = attributes.Int("heads", 1);
  const int64_t kv_heads = attributes.Int("kv_heads", heads);
  const int64_t parts = heads + 2 * kv_heads;
  if (heads < 1 || kv_heads < 1 || qkv[2] < 1 || qkv[2] % parts != 0) {
    return InvalidArgument("the last axis of " + qkv.ToString() +
                           " must be a multiple of heads + 2 kv_heads, " + std::to_string(parts));
  }
  const int64_t size = qkv[2] / parts;
  const TensorType q{inputs[0].dtype, Shape({qkv[0], qkv[1], heads * size})};
  const TensorType kv{inputs[0].dtype, Shape({qkv[0], qkv[1], kv_heads * size})};
  Types types = {q, kv, kv};
  if (bias_index < inputs.size()) types.push_back(inputs[bias_index]);
  LEPTON_RETURN_IF_ERROR(CheckAttention(types, 3, attributes));
  return types;
}

class AttentionGrad final : public OpWithoutGradient {
 public:
  AttentionGrad() : OpWithoutGradient("attention_grad") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    if (inputs.size() != 7) LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 6));
    LEPTON_RETURN_IF_ERROR(CheckAttention(inputs, 6, attributes));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 3, inputs[0]));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 4, LogSums(inputs[0].shape, attributes)));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 5, inputs[0]));
    return Types{inputs[0], inputs[1], inputs[2]};
  }
};

class PackedAttention final : public DifferentiableOp {
 public:
  PackedAttention() : DifferentiableOp("packed_attention") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    if (inputs.size() != 2) LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 1));
    LEPTON_ASSIGN_OR_RETURN(const Types unpacked, Unpacked(inputs, 1, attributes));
    return Types{unpacked[0], LogSums(unpacked[0].shape, attributes)};
  }

  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    if (output_gradients[1] != kNoValue) {
      return InvalidArgument("the saved logarithms cannot be differentiated");
    }
    LEPTON_ASSIGN_OR_RETURN(const ValueId dy,
                            As(graph, output_gradients[0], graph.type(node.inputs[0]).dtype));
    std::vector<ValueId> inputs = {node.inputs[0], node.outputs[0], node.outputs[1], dy};
    if (node.inputs.size() == 2) inputs.push_back(node.inputs[1]);
    LEPTON_ASSIGN_OR_RETURN(Gradients gradients,
                            graph.AddNode("packed_attention_grad", inputs, node.attributes));
    gradients.resize(node.inputs.size(), kNoValue);
    return gradients;
  }
};

class PackedAttentionGrad final : public OpWithoutGradient {
 public:
  PackedAttentionGrad() : OpWithoutGradient("packed_attention_grad") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    if (inputs.size() != 5) LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 4));
    LEPTON_ASSIGN_OR_RETURN(const Types unpacked, Unpacked(inputs, 4, attributes));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 1, unpacked[0]));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 2, LogSums(unpacked[0].shape, attributes)));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 3, unpacked[0]));
    return Types{inputs[0]};
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

const graph::Op& PackedAttentionOp() {
  static const PackedAttention op;
  return op;
}

const graph::Op& PackedAttentionGradOp() {
  static const PackedAttentionGrad op;
  return op;
}

}  // namespace lepton::ops
