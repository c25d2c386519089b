// Exporters of ops that move elements, and of sums over an axis.
#include <algorithm>

#include "runtime/formats/onnx/emitter.h"

namespace lepton::onnx {
namespace export_shape {

using graph::Node;

void BroadcastTo(Emitter& e, const Node& node) {
  const auto shape = e.Node("Shape", {e.name(node.inputs[1])});
  e.Set(node.outputs[0], e.Node("Expand", {e.name(node.inputs[0]), shape}));
}

void Concat(Emitter& e, const Node& node) {
  std::vector<Emitter::Name> inputs;
  for (const graph::ValueId input : node.inputs) inputs.push_back(e.name(input));
  e.Set(node.outputs[0], e.Node("Concat", inputs, {{"axis", node.attributes.Int("axis")}}));
}

void Gather(Emitter& e, const Node& node) {
  e.Set(node.outputs[0], e.Node("Gather", {e.name(node.inputs[0]), e.name(node.inputs[1])},
                                {{"axis", node.attributes.Int("axis")}}));
}

void Slice(Emitter& e, const Node& node) {
  const auto& a = node.attributes;
  e.Set(node.outputs[0], e.Slice(e.name(node.inputs[0]), a.Int("axis"), a.Int("begin"),
                                 a.Int("end"), a.Int("step", 1)));
}

void Transpose(Emitter& e, const Node& node) {
  e.Set(node.outputs[0], e.Transpose(e.name(node.inputs[0]), node.attributes.Ints("perm")));
}

// An open extent keeps its place (0 copies it) or is what remains (-1).
void Reshape(Emitter& e, const Node& node) {
  const auto& from = e.shape(node.inputs[0]).extents();
  Ints extents = e.shape(node.outputs[0]).extents();
  for (size_t i = 0; i < extents.size(); ++i) {
    if (extents[i] >= 0) continue;
    const bool kept = i < from.size() && from[i] == extents[i];
    extents[i] = kept ? 0 : -1;
  }
  if (std::count(extents.begin(), extents.end(), -1) > 1) {
    FailUnsupported("a reshape that moves two open extents");
  }
  e.Set(node.outputs[0], e.Reshape(e.name(node.inputs[0]), extents));
}

void Reduce(Emitter& e, const Node& node) {
  const auto& x = e.name(node.inputs[0]);
  const Ints axes = {node.attributes.Int("axis")};
  const bool mean = node.attributes.Text("kind") == "mean";
  e.Set(node.outputs[0],
        mean ? e.Node("ReduceMean", {x}, {{"axes", axes}, {"keepdims", int64_t{0}}})
             : e.Node("ReduceSum", {x, e.Integers(axes)}, {{"keepdims", int64_t{0}}}));
}

constexpr ExportRule kRules[] = {
    {"broadcast_to", BroadcastTo}, {"concat", Concat}, {"gather", Gather},       {"reduce", Reduce},
    {"reshape", Reshape},          {"slice", Slice},   {"transpose", Transpose},
};

}  // namespace export_shape

std::span<const ExportRule> ShapeExports() {
  return export_shape::kRules;
}

}  // namespace lepton::onnx
