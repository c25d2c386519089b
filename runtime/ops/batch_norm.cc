#include "runtime/ops/batch_norm.h"

#include "runtime/ops/op_base.h"

namespace lepton::ops {
namespace {

// The type of what channels have: x [n, c, ...] is the first of five inputs, and those from 1 to
// `last` are so.
Result<TensorType> ChannelsOf(std::span<const TensorType> inputs, size_t last) {
  LEPTON_RETURN_IF_ERROR(ExpectInputs(inputs, 5));
  LEPTON_RETURN_IF_ERROR(ExpectFloat(inputs, 0));
  LEPTON_RETURN_IF_ERROR(ExpectRows(inputs, 0, inputs[0].dtype));
  const TensorType channels{DType::kF32, Shape({inputs[0].shape[1]})};
  for (size_t i = 1; i <= last; ++i) LEPTON_RETURN_IF_ERROR(ExpectType(inputs, i, channels));
  return channels;
}

class BatchNorm final : public DifferentiableOp {
 public:
  BatchNorm() : DifferentiableOp("batch_norm") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"epsilon", "momentum", "training"}));
    LEPTON_ASSIGN_OR_RETURN(const TensorType channels, ChannelsOf(inputs, 4));
    return Types{inputs[0], channels, channels, channels, channels};
  }

  // The running statistics are state: they get no gradient.
  Result<Gradients> Gradient(Graph& graph, const Node& node,
                             std::span<const ValueId> output_gradients) const override {
    for (size_t i = 1; i < 5; ++i) {
      if (output_gradients[i] == kNoValue) continue;
      return InvalidArgument("the statistics cannot be differentiated");
    }
    LEPTON_ASSIGN_OR_RETURN(const ValueId dy,
                            As(graph, output_gradients[0], graph.type(node.inputs[0]).dtype));
    LEPTON_ASSIGN_OR_RETURN(
        Gradients gradients,
        graph.AddNode("batch_norm_grad",
                      {node.inputs[0], node.inputs[1], node.outputs[3], node.outputs[4], dy},
                      {{"training", node.attributes.Int("training")}}));
    gradients.resize(5, kNoValue);
    return gradients;
  }

  bool cheap_again() const override { return true; }
  Result<std::vector<ValueId>> Again(Graph& graph, graph::NodeId id,
                                     std::vector<ValueId> inputs) const override {
    const Node& node = graph.nodes()[id];
    LEPTON_ASSIGN_OR_RETURN(
        std::vector<ValueId> outputs,
        graph.AddNode("batch_norm_apply",
                      {inputs[0], inputs[1], inputs[2], node.outputs[3], node.outputs[4]}, {},
                      node.name + "/again"));
    outputs.resize(node.outputs.size(), kNoValue);
    return outputs;
  }
};

class BatchNormApply final : public OpWithoutGradient {
 public:
  BatchNormApply() : OpWithoutGradient("batch_norm_apply") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({}));
    LEPTON_RETURN_IF_ERROR(ChannelsOf(inputs, 4).status());
    return Types{inputs[0]};
  }
};

class BatchNormGrad final : public OpWithoutGradient {
 public:
  BatchNormGrad() : OpWithoutGradient("batch_norm_grad") {}

  Result<Types> Infer(std::span<const TensorType> inputs,
                      const Attributes& attributes) const override {
    LEPTON_RETURN_IF_ERROR(attributes.CheckNames({"training"}));
    LEPTON_ASSIGN_OR_RETURN(const TensorType channels, ChannelsOf(inputs, 3));
    LEPTON_RETURN_IF_ERROR(ExpectType(inputs, 4, inputs[0]));
    return Types{inputs[0], channels, channels};
  }
};

}  // namespace

const graph::Op& BatchNormOp() {
  static const BatchNorm op;
  return op;
}

const graph::Op& BatchNormApplyOp() {
  static const BatchNormApply op;
  return op;
}

const graph::Op& BatchNormGradOp() {
  static const BatchNormGrad op;
  return op;
}

}  // namespace lepton::ops
