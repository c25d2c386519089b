// Exporters of attention, positions and pooled tokens, which ONNX has no operators for: written
// out.
#include <cmath>
#include <limits>

#include "runtime/formats/onnx/emitter.h"
#include "runtime/ops/rope.h"

namespace lepton::onnx {
namespace export_transformer {

using graph::Node;
using Name = Emitter::Name;

// [batch, rows, heads * size] -> [batch, heads, rows, size].
Name SplitHeads(Emitter& e, const Name& x, int64_t heads, int64_t size) {
  return e.Transpose(e.Reshape(x, {0, 0, heads, size}), {0, 2, 1, 3});
}

// [batch, kv_heads, rows, size] -> [batch, heads, rows, size]: neighbours share.
Name RepeatHeads(Emitter& e, const Name& x, int64_t kv_heads, int64_t heads, int64_t size) {
  if (kv_heads == heads) return x;
  const Name wide =
      e.Node("Expand", {e.Unsqueeze(x, {2}), e.Integers({1, 1, heads / kv_heads, 1, 1})});
  return e.Reshape(wide, {0, heads, -1, size});
}

// The extent of an axis: a name shared by all values whose extent is the open sequence.
Name Rows(Emitter& e, graph::ValueId x, int64_t axis) {
  const int64_t extent = e.shape(x)[static_cast<int>(axis)];
  if (extent >= 0) return e.Integer(extent);
  return e.Shared("extent" + std::to_string(extent), [&] { return e.ExtentOf(e.name(x), axis); });
}

// bool [queries, keys]: which keys a query sees.
Name Visible(Emitter& e, const Node& node) {
  const int64_t window = node.attributes.Int("window");
  const graph::ValueId k = node.op->name() == "attention" ? node.inputs[1] : node.inputs[0];
  const Name queries = Rows(e, node.inputs[0], 1), keys = Rows(e, k, 1);
  return e.Shared("visible " + queries + " " + keys + " " + std::to_string(window), [&] {
    const Name first = e.Node("Sub", {keys, queries});
    const Name query = e.Unsqueeze(e.Node("Add", {e.Range(queries), first}), {1});
    const Name key = e.Unsqueeze(e.Range(keys), {0});
    const Name past = e.Node("LessOrEqual", {key, query});
    if (window == 0) return past;
    const Name oldest = e.Node("Sub", {query, e.Integer(window)});
    return e.Node("And", {past, e.Node("Greater", {key, oldest})});
  });
}

// `q`, `k`, `v`: [batch, rows, heads * size].
void AttentionOn(Emitter& e, const Node& node, const Name& q_rows, const Name& k_rows,
                 const Name& v_rows, const Name& bias, int64_t size) {
  const int64_t heads = node.attributes.Int("heads", 1);
  const int64_t kv_heads = node.attributes.Int("kv_heads", heads);
  const double scale = node.attributes.Float("scale", 1 / std::sqrt(static_cast<double>(size)));
  const Name q = SplitHeads(e, q_rows, heads, size);
  Name k = SplitHeads(e, k_rows, kv_heads, size);
  k = e.Transpose(RepeatHeads(e, k, kv_heads, heads, size), {0, 1, 3, 2});
  const Name v = RepeatHeads(e, SplitHeads(e, v_rows, kv_heads, size), kv_heads, heads, size);
  Name scores = e.Node("Mul", {e.Node("MatMul", {q, k}), e.Float(scale)});
  if (!bias.empty()) scores = e.Node("Add", {scores, e.Unsqueeze(bias, {1, 2})});
  if (node.attributes.Int("causal") != 0) {
    scores = e.Node("Where",
                    {Visible(e, node), scores, e.Float(-std::numeric_limits<double>::infinity())});
  }
  const Name weights = e.Node("Softmax", {scores}, {{"axis", int64_t{-1}}});
  const Name mixed = e.Transpose(e.Node("MatMul", {weights, v}), {0, 2, 1, 3});
  e.Set(node.outputs[0], e.Reshape(mixed, {0, 0, heads * size}));
}

void Attention(Emitter& e, const Node& node) {
  const int64_t size = e.shape(node.inputs[0]).back() / node.attributes.Int("heads", 1);
  AttentionOn(e, node, e.name(node.inputs[0]), e.name(node.inputs[1]), e.name(node.inputs[2]),
              node.inputs.size() == 4 ? e.name(node.inputs[3]) : Name(), size);
}

void PackedAttention(Emitter& e, const Node& node) {
  const int64_t heads = node.attributes.Int("heads", 1);
  const int64_t kv_heads = node.attributes.Int("kv_heads", heads);
  const int64_t size = e.shape(node.inputs[0]).back() / (heads + 2 * kv_heads);
  const Name qkv = e.name(node.inputs[0]);
  const auto part = [&](int64_t begin, int64_t end) {
    return e.Slice(qkv, 2, begin * size, end * size);
  };
  AttentionOn(e, node, part(0, heads), part(heads, heads + kv_heads),
              part(heads + kv_heads, heads + 2 * kv_heads),
              node.inputs.size() == 2 ? e.name(node.inputs[1]) : Name(), size);
}

// The cosine or sine of every position's angles, times the magnitude: f32 [rows, 1, dims / 2].
Name Angles(Emitter& e, const Node& node, int64_t dims, const char* function) {
  const graph::Attributes& a = node.attributes;
  const int64_t axis = e.shape(node.inputs[0]).rank() - 2;
  const Name rows = Rows(e, node.inputs[0], axis);
  const std::vector<double> frequencies = ops::RopeFrequencies(dims, a);
  std::string key = "angles " + rows + " " + std::to_string(a.Int("offset"));
  for (const double frequency : frequencies) key += " " + std::to_string(frequency);
  const Name angles = e.Shared(key, [&] {
    const Name position = e.Node("Add", {e.Range(rows), e.Integer(a.Int("offset"))});
    std::vector<float> numbers(frequencies.begin(), frequencies.end());
    return e.Node("Mul", {e.Unsqueeze(e.ToF32(position), {1, 2}), e.Floats({dims / 2}, numbers)});
  });
  const double magnitude = a.Float("magnitude", 1);
  key += std::string(" ") + function + " " + std::to_string(magnitude);
  return e.Shared(key, [&] {
    const Name turns = e.Node(function, {angles});
    return magnitude == 1 ? turns : e.Node("Mul", {turns, e.Float(magnitude)});
  });
}

void Rope(Emitter& e, const Node& node) {
  const graph::Attributes& a = node.attributes;
  const Shape& shape = e.shape(node.inputs[0]);
  if (shape.rank() != 3) FailUnsupported("rope on other than [batch, sequence, width]");
  if (node.inputs.size() == 2) FailUnsupported("rope with angles of each row's own");
  const int64_t size = a.Int("size", shape.back());
  const int64_t dims = a.Int("dims", size);
  const bool interleaved = a.Int("interleaved") != 0;
  const Name x = e.Reshape(e.name(node.inputs[0]), {0, 0, shape.back() / size, size});
  const int64_t last = interleaved ? dims : dims / 2, step = interleaved ? 2 : 1;
  const Name first = e.Slice(x, 3, 0, last, step);
  const Name second = e.Slice(x, 3, interleaved ? 1 : dims / 2, dims, step);
  const Name cosine = Angles(e, node, dims, "Cos"), sine = Angles(e, node, dims, "Sin");
  const bool back = a.Int("inverse") != 0;
  const Name along =
      e.Node(back ? "Add" : "Sub", {e.Node("Mul", {first, cosine}), e.Node("Mul", {second, sine})});
  const Name across =
      e.Node(back ? "Sub" : "Add", {e.Node("Mul", {second, cosine}), e.Node("Mul", {first, sine})});
  std::vector<Name> parts = {along, across};
  if (interleaved) {
    const Name pairs = e.Node("Concat", {e.Unsqueeze(along, {4}), e.Unsqueeze(across, {4})},
                              {{"axis", int64_t{4}}});
    parts = {e.Reshape(pairs, {0, 0, 0, dims})};
  }
  if (dims < size) parts.push_back(e.Slice(x, 3, dims, size));
  const Name turned =
      parts.size() == 1 ? parts[0] : e.Node("Concat", parts, {{"axis", int64_t{3}}});
  e.Set(node.outputs[0], e.Reshape(turned, {0, 0, shape.back()}));
}

void Positions(Emitter& e, const Node& node) {
  const Name rows = Rows(e, node.inputs[0], e.shape(node.inputs[0]).rank() - 1);
  const Name all = e.Node("Add", {e.Range(rows), e.Integer(node.attributes.Int("offset"))});
  constexpr int64_t kInt32Code = 6;
  e.Set(node.outputs[0], e.Node("Cast", {all}, {{"to", kInt32Code}}));
}

// How much of each token's row its text takes: f32 [batch, sequence].
Name SharesOfTokens(Emitter& e, const Node& node) {
  const std::string kind = node.attributes.Text("kind");
  const Name kept = e.ToF32(e.Node("Greater", {e.name(node.inputs[1]), e.Float(-1)}));
  const Name position = e.Unsqueeze(e.Range(Rows(e, node.inputs[0], 1)), {0});
  const auto only = [&](const Name& index) { return e.ToF32(e.Node("Equal", {position, index})); };
  if (kind == "mean") {
    const Name count = e.Node("ReduceSum", {kept, e.Integers({1})}, {{"keepdims", int64_t{1}}});
    const Name counted =
        e.Node("Where", {e.Node("Greater", {count, e.Float(0)}), kept, only(e.Integer(0))});
    return e.Node("Div", {counted, e.Node("Max", {count, e.Float(1)})});
  }
  // The largest of what grows with the position; of nothing, the first.
  const Name rank = e.Node("Add", {e.ToF32(position), e.Float(1)});
  const Name scores = kind == "last" ? e.Node("Mul", {kept, rank}) : kept;
  return only(e.Node("ArgMax", {scores}, {{"axis", int64_t{1}}, {"keepdims", int64_t{1}}}));
}

void PoolTokens(Emitter& e, const Node& node) {
  const std::string kind = node.attributes.Text("kind");
  const auto& x = e.name(node.inputs[0]);
  if (node.inputs.size() == 2) {
    const Name shares = e.Unsqueeze(SharesOfTokens(e, node), {2});
    return e.Set(node.outputs[0], e.Node("ReduceSum", {e.Node("Mul", {x, shares}), e.Integers({1})},
                                         {{"keepdims", int64_t{0}}}));
  }
  if (kind == "mean") {
    return e.Set(node.outputs[0],
                 e.Node("ReduceMean", {x}, {{"axes", Ints{1}}, {"keepdims", int64_t{0}}}));
  }
  const bool first = kind == "first";
  const Name row = e.Slice(x, 1, first ? 0 : -1, first ? 1 : std::numeric_limits<int64_t>::max());
  e.Set(node.outputs[0], e.Reshape(row, {0, e.shape(node.inputs[0])[2]}));
}

constexpr ExportRule kRules[] = {
    {"attention", Attention},
    {"packed_attention", PackedAttention},
    {"pool_tokens", PoolTokens},
    {"positions", Positions},
    {"rope", Rope},
};

}  // namespace export_transformer

std::span<const ExportRule> TransformerExports() {
  return export_transformer::kRules;
}

}  // namespace lepton::onnx
