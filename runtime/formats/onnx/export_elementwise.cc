// Exporters of ops that work element by element, and of norms and softmaxes over rows.
#include <cmath>
#include <numbers>

#include "runtime/formats/onnx/emitter.h"

namespace lepton::onnx {
namespace export_elementwise {

using graph::Node;

template <size_t n>
struct Text {
  constexpr Text(const char (&text)[n]) { std::copy_n(text, n, value); }
  char value[n];
};

// An op that has the same inputs and no attributes in ONNX.
template <Text op>
void Same(Emitter& e, const Node& node) {
  std::vector<Emitter::Name> inputs;
  for (const graph::ValueId input : node.inputs) inputs.push_back(e.name(input));
  e.Set(node.outputs[0], e.Node(op.value, inputs));
}

void Cast(Emitter& e, const Node& node) {
  const auto& x = e.name(node.inputs[0]);
  // To bf16: rounded, but kept as f32, since few programs compute with bf16.
  if (e.type(node.outputs[0]).dtype != DType::kBF16) return e.Set(node.outputs[0], x);
  constexpr int64_t kBFloat16Code = 16;
  e.Set(node.outputs[0], e.ToF32(e.Node("Cast", {x}, {{"to", kBFloat16Code}})));
}

void Fill(Emitter& e, const Node& node) {
  const auto shape = e.Node("Shape", {e.name(node.inputs[0])});
  e.Set(node.outputs[0], e.Node("Expand", {e.Float(node.attributes.Float("value")), shape}));
}

// x * 0.5 * (1 + erf(x / sqrt(2))), as others write it.
void Gelu(Emitter& e, const Node& node) {
  const auto& x = e.name(node.inputs[0]);
  const auto erf = e.Node("Erf", {e.Node("Div", {x, e.Float(std::numbers::sqrt2)})});
  const auto doubled = e.Node("Mul", {x, e.Node("Add", {erf, e.Float(1)})});
  e.Set(node.outputs[0], e.Node("Mul", {doubled, e.Float(0.5)}));
}

// x * sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)), which is the tanh form.
void GeluTanh(Emitter& e, const Node& node) {
  const auto& x = e.name(node.inputs[0]);
  const auto cube = e.Node("Mul", {x, e.Node("Mul", {x, x})});
  const auto bent = e.Node("Add", {x, e.Node("Mul", {cube, e.Float(0.044715)})});
  const auto scaled =
      e.Node("Mul", {bent, e.Float(2 * std::numbers::sqrt2 * std::numbers::inv_sqrtpi)});
  e.Set(node.outputs[0], e.Node("Mul", {x, e.Node("Sigmoid", {scaled})}));
}

void Silu(Emitter& e, const Node& node) {
  const auto& x = e.name(node.inputs[0]);
  e.Set(node.outputs[0], e.Node("Mul", {x, e.Node("Sigmoid", {x})}));
}

void Scale(Emitter& e, const Node& node) {
  e.Set(node.outputs[0],
        e.Node("Mul", {e.name(node.inputs[0]), e.Float(node.attributes.Float("factor", 1))}));
}

// Nothing is dropped where nothing is trained.
void Dropout(Emitter& e, const Node& node) {
  e.Set(node.outputs[0], e.name(node.inputs[0]));
}

template <Text op>
void LastAxis(Emitter& e, const Node& node) {
  e.Set(node.outputs[0], e.Node(op.value, {e.name(node.inputs[0])}, {{"axis", int64_t{-1}}}));
}

void LayerNorm(Emitter& e, const Node& node) {
  e.Set(node.outputs[0],
        e.Node("LayerNormalization",
               {e.name(node.inputs[0]), e.name(node.inputs[1]), e.name(node.inputs[2])},
               {{"axis", int64_t{-1}}, {"epsilon", node.attributes.Float("epsilon", 1e-5)}}));
}

void RmsNorm(Emitter& e, const Node& node) {
  const auto& x = e.name(node.inputs[0]);
  const auto mean =
      e.Node("ReduceMean", {e.Node("Mul", {x, x})}, {{"axes", Ints{-1}}, {"keepdims", int64_t{1}}});
  const auto root =
      e.Node("Sqrt", {e.Node("Add", {mean, e.Float(node.attributes.Float("epsilon", 1e-5))})});
  e.Set(node.outputs[0], e.Node("Mul", {e.Node("Div", {x, root}), e.name(node.inputs[1])}));
}

constexpr ExportRule kRules[] = {
    {"add", Same<"Add">},
    {"bias_add", Same<"Add">},
    {"cast", Cast},
    {"div", Same<"Div">},
    {"dropout", Dropout},
    {"fill", Fill},
    {"gelu", Gelu},
    {"gelu_tanh", GeluTanh},
    {"layer_norm", LayerNorm},
    {"log_softmax", LastAxis<"LogSoftmax">},
    {"mul", Same<"Mul">},
    {"relu", Same<"Relu">},
    {"rms_norm", RmsNorm},
    {"scale", Scale},
    {"sigmoid", Same<"Sigmoid">},
    {"silu", Silu},
    {"softmax", LastAxis<"Softmax">},
    {"sub", Same<"Sub">},
    {"tanh", Same<"Tanh">},
};

}  // namespace export_elementwise

std::span<const ExportRule> ElementwiseExports() {
  return export_elementwise::kRules;
}

}  // namespace lepton::onnx
