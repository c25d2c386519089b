#include "runtime/nn/model_builder.h"

#include <glog/logging.h>

#include <algorithm>

#include "runtime/ops/matmul_int8.h"

namespace lepton::nn {

using graph::ValueId;

ValueId ModelBuilder::Parameter(const std::string& name, const Shape& shape,
                                const FirstValues& first) {
  const ValueId value = graph_.AddParameter(name, {DType::kF32, shape});
  parameters_.push_back(
      {{name, shape.extents(), trained_elements_, shape.elements()}, value, first});
  parameters_.back().view.head = in_head_;
  trained_elements_ += shape.elements();
  return value;
}

ValueId ModelBuilder::CutParameter(const std::string& name, const Shape& whole, int axis,
                                   std::vector<int64_t> sections, const FirstValues& first) {
  if (!tensor_.divided()) return Parameter(name, whole, first);
  std::vector<int64_t> extents = whole.extents();
  extents[static_cast<size_t>(axis)] /= tensor_.ranks;
  const ValueId value = Parameter(name, Shape(std::move(extents)), first);
  parameters_.back().view.slice = {axis, std::move(sections), tensor_};
  return value;
}

ValueId ModelBuilder::Statistic(const std::string& name, const Shape& shape,
                                const FirstValues& first, double momentum) {
  const ValueId value = graph_.AddParameter(name, {DType::kF32, shape});
  parameters_.push_back(
      {{name, shape.extents(), statistic_elements_, shape.elements(), true, momentum},
       value,
       first});
  statistic_elements_ += shape.elements();
  return value;
}

void ModelBuilder::SetStatistic(ValueId statistic, ValueId of_batch) {
  const auto found = std::find_if(parameters_.begin(), parameters_.end(),
                                  [&](const Declared& p) { return p.value == statistic; });
  CHECK(found != parameters_.end() && found->view.statistic);
  found->of_batch = of_batch;
}

void ModelBuilder::Place() {
  for (Declared& parameter : parameters_) {
    if (parameter.view.statistic) parameter.view.offset += trained_elements_;
  }
}

Result<ValueId> ModelBuilder::Narrow(ValueId value) {
  if (precision_ == "f32" || graph_.type(value).dtype == DType::kBF16) return value;
  return graph_.Add("cast", {value}, {{"to", "bf16"}});
}

Result<ValueId> ModelBuilder::IntoShares(ValueId value) {
  if (!tensor_.divided()) return value;
  return graph_.Add("tensor_copy", {value});
}

Result<ValueId> ModelBuilder::Widen(ValueId value) {
  if (graph_.type(value).dtype == DType::kF32) return value;
  return graph_.Add("cast", {value}, {{"to", "f32"}});
}

Result<ValueId> ModelBuilder::Matmul(const std::string& name, ValueId x, ValueId weight,
                                     bool transposed) {
  if (precision_ == "int8" && graph_.type(x).shape.back() <= ops::kInt8MostInner) {
    return graph_.Add("matmul_int8", {x, weight}, {{"transpose_b", int64_t{transposed}}},
                      name + "/matmul");
  }
  LEPTON_ASSIGN_OR_RETURN(const ValueId left, Narrow(x));
  LEPTON_ASSIGN_OR_RETURN(const ValueId right, Narrow(weight));
  graph::Attributes attributes;
  if (transposed) attributes.Set("transpose_b", int64_t{1});
  return graph_.Add("matmul", {left, right}, std::move(attributes), name + "/matmul");
}

Result<ValueId> ModelBuilder::Conv2d(const std::string& name, ValueId x, ValueId weight,
                                     graph::Attributes attributes) {
  const Shape& extents = graph_.type(weight).shape;
  LEPTON_ASSIGN_OR_RETURN(x, Narrow(x));
  if (precision_ == "int8" && extents[1] * extents[2] * extents[3] <= ops::kInt8MostInner) {
    return graph_.Add("conv2d_int8", {x, weight}, std::move(attributes), name);
  }
  LEPTON_ASSIGN_OR_RETURN(const ValueId narrow, Narrow(weight));
  return graph_.Add("conv2d", {x, narrow}, std::move(attributes), name);
}

Result<ValueId> ModelBuilder::Linear(const std::string& name, ValueId x, const LinearShape& shape) {
  const Shape extents =
      shape.transposed ? Shape({shape.out, shape.in}) : Shape({shape.in, shape.out});
  const bool by_out = shape.cut == Cut::kOut, by_in = shape.cut == Cut::kIn;
  std::vector<int64_t> sections = shape.sections;
  if (sections.empty()) sections = {by_in ? shape.in : shape.out};
  // The weight's axis of its outputs is 0 where it is transposed.
  const int axis = by_out == shape.transposed ? 0 : 1;
  const ValueId weight = by_out || by_in
                             ? CutParameter(name + ".weight", extents, axis, sections, shape.first)
                             : Parameter(name + ".weight", extents, shape.first);
  ValueId bias = graph::kNoValue;
  if (shape.bias) {
    const FirstValues zero = FirstValues::Constant(0);
    bias = by_out ? CutParameter(name + ".bias", {shape.out}, 0, sections, zero)
                  : Parameter(name + ".bias", {shape.out}, zero);
  }
  LEPTON_ASSIGN_OR_RETURN(ValueId product, Matmul(name, x, weight, shape.transposed));
  if (by_in && tensor_.divided()) {
    LEPTON_ASSIGN_OR_RETURN(product, graph_.Add("tensor_sum", {product}, {}, name + "/sum"));
  }
  if (!shape.bias) return product;
  return graph_.Add("bias_add", {product, bias}, {}, name + "/bias");
}

Result<ValueId> ModelBuilder::LayerNorm(const std::string& name, ValueId x, int64_t width,
                                        double epsilon) {
  const ValueId gain = Parameter(name + ".weight", {width}, FirstValues::Constant(1));
  const ValueId bias = Parameter(name + ".bias", {width}, FirstValues::Constant(0));
  return graph_.Add("layer_norm", {x, gain, bias}, {{"epsilon", epsilon}}, name);
}

Result<ValueId> ModelBuilder::Activation(std::string_view kind, const std::string& name,
                                         ValueId x) {
  constexpr std::string_view kKinds[] = {"relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid"};
  if (std::find(std::begin(kKinds), std::end(kKinds), kind) == std::end(kKinds)) {
    return InvalidArgument("model.activation: '" + std::string(kind) +
                           "' is unknown: must be relu, gelu, gelu_tanh, silu, tanh or sigmoid");
  }
  return graph_.Add(kind, {x}, {}, name + "/" + std::string(kind));
}

Result<ValueId> ModelBuilder::Dropout(const std::string& name, ValueId x, double rate) {
  const int64_t stream = ++dropouts_;
  if (!training_ || rate == 0) return x;
  return graph_.Add("dropout", {x}, {{"rate", rate}, {"stream", stream}}, name + "/dropout");
}

void InitializeParameters(const std::vector<ModelBuilder::Declared>& parameters, uint64_t seed,
                          std::span<float> weights) {
  for (const auto& parameter : parameters) {
    const ParameterView& view = parameter.view;
    const std::span<float> values = weights.subspan(view.offset, view.size);
    if (!view.slice.cut()) {
      Initialize(parameter.first, seed, view.name, values);
      continue;
    }
    std::vector<float> whole(static_cast<size_t>(view.size * view.slice.place.ranks));
    Initialize(parameter.first, seed, view.name, whole);
    TakePart(view.shape, view.slice, whole, values);
  }
}

std::vector<ParameterView> ParameterViews(const std::vector<ModelBuilder::Declared>& parameters) {
  std::vector<ParameterView> views;
  for (const auto& parameter : parameters) views.push_back(parameter.view);
  return views;
}

}  // namespace lepton::nn
