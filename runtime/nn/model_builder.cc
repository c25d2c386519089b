#include "runtime/nn/model_builder.h"

namespace lepton::nn {

using graph::ValueId;

ValueId ModelBuilder::AddParameter(const std::string& name, const Shape& shape,
                                   Initializer initializer) {
  const ValueId value = graph_.AddParameter(name, {DType::kF32, shape});
  parameters_.push_back({{name, shape.extents(), elements_, shape.elements()}, value, initializer});
  elements_ += shape.elements();
  return value;
}

Result<ValueId> ModelBuilder::ToGemmInput(ValueId value) {
  if (precision_ != "bf16") return value;
  return graph_.Add("cast", {value}, {{"to", "bf16"}});
}

Result<ValueId> ModelBuilder::Linear(const std::string& name, ValueId x, int64_t in, int64_t out,
                                     const std::string& activation) {
  const bool kaiming = activation == "relu" || activation == "gelu";
  const ValueId weight =
      AddParameter(name + ".weight", {in, out},
                   kaiming ? Initializer::kKaimingUniform : Initializer::kXavierUniform);
  const ValueId bias = AddParameter(name + ".bias", {out}, Initializer::kZeros);
  LEPTON_ASSIGN_OR_RETURN(const ValueId left, ToGemmInput(x));
  LEPTON_ASSIGN_OR_RETURN(const ValueId right, ToGemmInput(weight));
  LEPTON_ASSIGN_OR_RETURN(const ValueId product,
                          graph_.Add("matmul", {left, right}, {}, name + "/matmul"));
  return graph_.Add("bias_add", {product, bias}, {}, name + "/bias");
}

Result<ValueId> ModelBuilder::LayerNorm(const std::string& name, ValueId x, int64_t width) {
  const ValueId gain = AddParameter(name + ".weight", {width}, Initializer::kOnes);
  const ValueId bias = AddParameter(name + ".bias", {width}, Initializer::kZeros);
  return graph_.Add("layer_norm", {x, gain, bias}, {{"epsilon", 1e-5}}, name);
}

Result<ValueId> ModelBuilder::Activation(const std::string& kind, const std::string& name,
                                         ValueId x) {
  if (kind != "relu" && kind != "gelu" && kind != "tanh" && kind != "sigmoid") {
    return InvalidArgument("model.activation: '" + kind +
                           "' is unknown: must be relu, gelu, tanh or sigmoid");
  }
  return graph_.Add(kind, {x}, {}, name + "/" + kind);
}

Result<ValueId> ModelBuilder::Dropout(const std::string& name, ValueId x, double rate) {
  const int64_t stream = ++dropouts_;
  if (!training_ || rate == 0) return x;
  return graph_.Add("dropout", {x}, {{"rate", rate}, {"stream", stream}}, name + "/dropout");
}

void InitializeParameters(const std::vector<ModelBuilder::Parameter>& parameters, uint64_t seed,
                          std::span<float> weights) {
  for (const auto& [view, value, initializer] : parameters) {
    const int64_t in = view.shape.front();
    Initialize(initializer, seed, view.name, in, view.shape.back(),
               weights.subspan(view.offset, view.size));
  }
}

std::vector<ParameterView> ParameterViews(const std::vector<ModelBuilder::Parameter>& parameters) {
  std::vector<ParameterView> views;
  for (const auto& parameter : parameters) views.push_back(parameter.view);
  return views;
}

}  // namespace lepton::nn
