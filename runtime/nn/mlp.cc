#include "runtime/nn/mlp.h"

namespace lepton::nn {

using graph::ValueId;

namespace {

constexpr int64_t kMaxWidth = 65536;
constexpr size_t kMaxLayers = 64;

Status CheckMlp(const spec::ModelSpec& model) {
  if (model.hidden.size() > kMaxLayers) {
    return InvalidArgument("model.hidden: has " + std::to_string(model.hidden.size()) +
                           " layers: must have at most " + std::to_string(kMaxLayers));
  }
  for (const int64_t width : model.hidden) {
    if (width < 1 || width > kMaxWidth) {
      return InvalidArgument("model.hidden: " + std::to_string(width) +
                             " is out of range: must be in 1.." + std::to_string(kMaxWidth));
    }
  }
  if (!(model.dropout >= 0 && model.dropout < 1)) {
    return InvalidArgument("model.dropout: " + std::to_string(model.dropout) +
                           " is out of range: must be in [0, 1)");
  }
  return Status::Ok();
}

// `activation`: what follows the layer.
ModelBuilder::LinearShape LayerShape(int64_t in, int64_t out, const std::string& activation) {
  const bool kaiming = activation == "relu" || activation == "silu" || activation == "gelu" ||
                       activation == "gelu_tanh";
  return {.in = in,
          .out = out,
          .first = kaiming ? FirstValues::Kaiming(in) : FirstValues::Xavier(in, out)};
}

}  // namespace

Result<ValueId> BuildMlp(ModelBuilder& builder, const Signature& signature,
                         const spec::ModelSpec& model, std::span<const ValueId> inputs) {
  LEPTON_RETURN_IF_ERROR(CheckMlp(model));
  if (inputs.size() != 1 || signature.inputs[0].type.shape.rank() != 2 ||
      signature.inputs[0].type.dtype != DType::kF32) {
    return InvalidArgument("model.arch: mlp takes rows of features only");
  }
  ValueId x = inputs[0];
  int64_t in = signature.inputs[0].type.shape.back();
  for (size_t i = 0; i < model.hidden.size(); ++i) {
    const std::string name = "layers." + std::to_string(i);
    const int64_t out = model.hidden[i];
    builder.graph().BeginBlock();
    LEPTON_ASSIGN_OR_RETURN(x, builder.Linear(name, x, LayerShape(in, out, model.activation)));
    if (model.layer_norm) {
      LEPTON_ASSIGN_OR_RETURN(x, builder.LayerNorm(name + ".norm", x, out));
    }
    LEPTON_ASSIGN_OR_RETURN(x, builder.Narrow(x));
    LEPTON_ASSIGN_OR_RETURN(x, builder.Activation(model.activation, name, x));
    LEPTON_ASSIGN_OR_RETURN(x, builder.Dropout(name, x, model.dropout));
    in = out;
  }
  builder.graph().EndBlock();
  return builder.Linear("layers." + std::to_string(model.hidden.size()), x,
                        LayerShape(in, signature.outputs, ""));
}

}  // namespace lepton::nn
