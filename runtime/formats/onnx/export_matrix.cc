// Exporters of products, convolutions and what goes with images.
#include "runtime/formats/onnx/emitter.h"

namespace lepton::onnx {
namespace export_matrix {

using graph::Node;

// With the last two axes swapped.
Emitter::Name Swapped(Emitter& e, graph::ValueId id) {
  Ints order = AllAxes(e.shape(id).rank());
  std::swap(order[order.size() - 1], order[order.size() - 2]);
  return e.Transpose(e.name(id), order);
}

void Matmul(Emitter& e, const Node& node) {
  const graph::ValueId a = node.inputs[0], b = node.inputs[1];
  const bool swap_a = node.attributes.Int("transpose_a") != 0;
  const bool swap_b = node.attributes.Int("transpose_b") != 0;
  if (e.shape(a).rank() == 2 && e.shape(b).rank() == 2 && (swap_a || swap_b)) {
    return e.Set(node.outputs[0],
                 e.Node("Gemm", {e.name(a), e.name(b)},
                        {{"transA", int64_t{swap_a}}, {"transB", int64_t{swap_b}}}));
  }
  if (swap_a) FailUnsupported("a product summed over rows: only gradients are");
  e.Set(node.outputs[0], e.Node("MatMul", {e.name(a), swap_b ? Swapped(e, b) : e.name(b)}));
}

void BatchMatmul(Emitter& e, const Node& node) {
  const graph::ValueId a = node.inputs[0], b = node.inputs[1];
  const bool swap_a = node.attributes.Int("transpose_a") != 0;
  const bool swap_b = node.attributes.Int("transpose_b") != 0;
  e.Set(node.outputs[0],
        e.Node("MatMul", {swap_a ? Swapped(e, a) : e.name(a), swap_b ? Swapped(e, b) : e.name(b)}));
}

constexpr ExportRule kRules[] = {
    {"batch_matmul", BatchMatmul},
    {"matmul", Matmul},
    {"conv2d_int8", nullptr, "models leave as they were trained, not quantised"},
    {"matmul_int8", nullptr, "models leave as they were trained, not quantised"},
};

// The window of a convolution or pool, of which `kernel` is the size.
Emitter::Attributes Window(const graph::Attributes& a, const Ints& kernel) {
  return {{"kernel_shape", kernel},
          {"strides", a.Ints("strides", {1, 1})},
          {"pads", a.Ints("pads", {0, 0, 0, 0})}};
}

void Conv2d(Emitter& e, const Node& node) {
  const Shape& weights = e.shape(node.inputs[1]);
  auto attributes = Window(node.attributes, {weights[2], weights[3]});
  attributes.emplace_back("dilations", node.attributes.Ints("dilations", {1, 1}));
  attributes.emplace_back("group", node.attributes.Int("groups", 1));
  e.Set(node.outputs[0],
        e.Node("Conv", {e.name(node.inputs[0]), e.name(node.inputs[1])}, attributes));
}

void MaxPool(Emitter& e, const Node& node) {
  auto attributes = Window(node.attributes, node.attributes.Ints("kernel"));
  attributes.emplace_back("dilations", node.attributes.Ints("dilations", {1, 1}));
  e.Set(node.outputs[0], e.Node("MaxPool", {e.name(node.inputs[0])}, attributes));
}

void AveragePool(Emitter& e, const Node& node) {
  if (node.attributes.Ints("dilations", {1, 1}) != Ints{1, 1}) {
    FailUnsupported("an average pool with dilations");
  }
  auto attributes = Window(node.attributes, node.attributes.Ints("kernel"));
  attributes.emplace_back("count_include_pad", node.attributes.Int("include_pad", 1));
  e.Set(node.outputs[0], e.Node("AveragePool", {e.name(node.inputs[0])}, attributes));
}

void BatchNorm(Emitter& e, const Node& node) {
  std::vector<Emitter::Name> inputs;
  for (const graph::ValueId input : node.inputs) inputs.push_back(e.name(input));
  // Trained or not, what leaves normalises by the running statistics.
  e.Set(node.outputs[0], e.Node("BatchNormalization", inputs,
                                {{"epsilon", node.attributes.Float("epsilon", 1e-5)}}));
  e.Set(node.outputs[1], inputs[3]);
  e.Set(node.outputs[2], inputs[4]);
}

constexpr ExportRule kImageRules[] = {
    {"average_pool2d", AveragePool},
    {"batch_norm", BatchNorm},
    {"conv2d", Conv2d},
    {"max_pool2d", MaxPool},
};

}  // namespace export_matrix

std::span<const ExportRule> MatrixExports() {
  return export_matrix::kRules;
}

std::span<const ExportRule> ImageExports() {
  return export_matrix::kImageRules;
}

}  // namespace lepton::onnx
