// Attention, written out by others as products and a softmax per head, found again.
#include <algorithm>
#include <map>

#include "runtime/formats/onnx/patterns.h"

namespace lepton::onnx::patterns {
namespace {

struct Heads {
  Id value;  // [batch, rows, heads * size]
  int64_t heads, size;
  double scale;  // that it was multiplied by
};

Id Unscaled(Builder& b, Id x, double& scale) {
  const Factors factors = FactorsOf(b, x, 3);
  if (factors.values.size() != 1) return x;
  scale *= factors.constant;
  return factors.values[0];
}

// How the axes of heads were moved: of [batch, rows, heads, size], or [rows, batch, heads, size].
struct Layout {
  Ints heads;    // to [batch, heads, rows, size]
  Ints swapped;  // to [batch, heads, size, rows]
  Ints back;     // from [batch, heads, rows, size]
  bool rows_first;
};
const Layout kLayouts[] = {{{0, 2, 1, 3}, {0, 2, 3, 1}, {0, 2, 1, 3}, false},
                           {{1, 2, 0, 3}, {1, 2, 3, 0}, {2, 0, 1, 3}, true}};
const Ints kTurn = {1, 0, 2};

// [rows, batch, ..] as [batch, rows, ..] where it was computed row by row from what had been turned
// from that; `made` has what was computed already.
std::optional<Id> Unturned(Builder& b, Id x, std::map<Id, Id>& made, int depth = 4) {
  if (const auto found = made.find(x); found != made.end()) return found->second;
  const graph::NodeId producer = b.graph().value(x).producer;
  if (producer == graph::kNoNode || b.rank(x) != 3 || depth == 0) return std::nullopt;
  const graph::Node node = b.graph().nodes()[producer];
  const std::string_view op = node.op->name();
  if (op == "transpose") {
    if (node.attributes.Ints("perm") != kTurn) return std::nullopt;
    return node.inputs[0];
  }
  const bool by_row = op == "bias_add" || (op == "slice" && node.attributes.Int("axis") == 2) ||
                      (op == "matmul" && node.attributes.Int("transpose_a") == 0);
  if (!by_row) return std::nullopt;
  const auto inner = Unturned(b, node.inputs[0], made, depth - 1);
  if (!inner) return std::nullopt;
  std::vector<Id> inputs = node.inputs;
  inputs[0] = *inner;
  made[x] = b.Node(op, inputs, node.attributes);
  return made[x];
}

// A mask that all heads have, of one of them; or one number for all.
std::optional<Id> OfOneHead(Builder& b, Id mask, const Shape& wanted, int depth = 8) {
  if (b.shape(mask) == wanted || b.Number(mask)) return mask;
  const graph::NodeId producer = b.graph().value(mask).producer;
  if (producer == graph::kNoNode || depth == 0) return std::nullopt;
  const graph::Node node = b.graph().nodes()[producer];
  const std::string_view op = node.op->name();
  if (op == "repeat") return OfOneHead(b, node.inputs[0], wanted, depth - 1);
  if (!IsOneOf(op, {"convert", "select", "scale", "unary_math", "binary_math"})) {
    return std::nullopt;
  }
  std::vector<Id> inputs;
  for (const Id input : node.inputs) {
    const auto one = OfOneHead(b, input, wanted, depth - 1);
    if (!one) return std::nullopt;
    inputs.push_back(*one);
  }
  return b.Node(op, inputs, node.attributes);
}

// The value whose heads were split and moved: transpose(reshape(x, [batch, rows, heads, size])).
std::optional<Heads> SplitHeads(Builder& b, Id y, const Ints& perm) {
  Heads heads{graph::kNoValue, 0, 0, 1};
  y = Unscaled(b, y, heads.scale);
  const graph::Node* transpose = b.Producer(y, "transpose");
  if (transpose == nullptr || transpose->attributes.Ints("perm") != perm) return std::nullopt;
  const graph::Node* reshape =
      b.Producer(Unscaled(b, transpose->inputs[0], heads.scale), "reshape");
  if (reshape == nullptr || b.rank(reshape->outputs[0]) != 4 || b.rank(reshape->inputs[0]) != 3) {
    return std::nullopt;
  }
  const Shape& split = b.shape(reshape->outputs[0]);
  const Shape& whole = b.shape(reshape->inputs[0]);
  if (split[0] != whole[0] || split[1] != whole[1] || split[2] < 1 || split[3] < 1) {
    return std::nullopt;
  }
  heads.value = reshape->inputs[0];
  heads.heads = split[2];
  heads.size = split[3];
  return heads;
}

struct Scores {
  Id queries = graph::kNoValue, keys = graph::kNoValue;
  bool swapped = false;  // keys are [.., keys, size]
  bool causal = false;
  double scale = 1;
  Id mask = graph::kNoValue;  // what is added
};

constexpr double kHides = -1e4;  // what is added to a score, or taken for it, or less

bool HidesAll(Builder& b, Id value) {
  const auto number = b.Number(value);
  return number && *number <= kHides;
}

// Of a mask that is added: what is seen has no bias.
bool AddsNothing(double bias, bool seen) {
  return seen ? bias == 0 : bias <= kHides;
}

// What goes into the softmax, taken apart.
std::optional<Scores> TakeApart(Builder& b, Id y) {
  Scores scores;
  for (int depth = 0; depth < 4; ++depth) {
    y = Unscaled(b, y, scores.scale);
    if (const graph::Node* product = b.Producer(y, "batch_matmul")) {
      if (product->attributes.Int("transpose_a") != 0) return std::nullopt;
      scores.queries = product->inputs[0];
      scores.keys = product->inputs[1];
      scores.swapped = product->attributes.Int("transpose_b") != 0;
      return scores;
    }
    if (const graph::Node* select = b.Producer(y, "select")) {
      // Either the keys that are seen are chosen, or those that are hidden.
      const int hidden = HidesAll(b, select->inputs[2]) ? 2 : 1;
      const auto sees = [&](double chosen, bool seen) {
        return ((chosen != 0) == (hidden == 2)) == seen;
      };
      if (scores.causal || scores.scale != 1 || !HidesAll(b, select->inputs[hidden]) ||
          !IsCausal(b, select->inputs[0], sees)) {
        return std::nullopt;
      }
      scores.causal = true;
      y = select->inputs[3 - hidden];
      continue;
    }
    const graph::Node* add = b.Producer(y, "add");
    if (add == nullptr || scores.scale != 1) return std::nullopt;
    const int side = b.shape(add->inputs[0]) == b.shape(y) ? 1 : 0;  // of the mask
    const Id mask = add->inputs[side];
    if (!scores.causal && IsCausal(b, mask, AddsNothing)) {
      scores.causal = true;
    } else if (scores.mask == graph::kNoValue) {
      scores.mask = mask;
    } else {
      return std::nullopt;
    }
    y = add->inputs[1 - side];
  }
  return std::nullopt;
}

}  // namespace

std::optional<Id> Attention(Builder& b, Id y) {
  const graph::Node* joined = b.Producer(y, "reshape");
  if (joined == nullptr || b.rank(y) != 3) return std::nullopt;
  const graph::Node* moved = b.Producer(joined->inputs[0], "transpose");
  if (moved == nullptr) return std::nullopt;
  const auto layout = std::find_if(std::begin(kLayouts), std::end(kLayouts), [&](const Layout& l) {
    return l.back == moved->attributes.Ints("perm");
  });
  if (layout == std::end(kLayouts)) return std::nullopt;
  const graph::Node* mixed = b.Producer(moved->inputs[0], "batch_matmul");
  if (mixed == nullptr || mixed->attributes.Int("transpose_a") != 0 ||
      mixed->attributes.Int("transpose_b") != 0) {
    return std::nullopt;
  }
  const graph::Node* softmax = b.Producer(mixed->inputs[0], "softmax");
  const auto values = SplitHeads(b, mixed->inputs[1], layout->heads);
  if (softmax == nullptr || !values || values->scale != 1) return std::nullopt;
  const auto scores = TakeApart(b, softmax->inputs[0]);
  if (!scores) return std::nullopt;
  const auto queries = SplitHeads(b, scores->queries, layout->heads);
  const auto keys = SplitHeads(b, scores->keys, scores->swapped ? layout->heads : layout->swapped);
  if (!queries || !keys || queries->heads != keys->heads || queries->heads != values->heads ||
      queries->size != keys->size || b.type(keys->value) != b.type(values->value)) {
    return std::nullopt;
  }
  const int batch = layout->rows_first ? 1 : 0, rows = 1 - batch;
  const int64_t examples = b.shape(y)[batch], count = b.shape(keys->value)[rows];
  if (b.shape(y) != b.shape(queries->value) || b.shape(keys->value)[batch] != examples ||
      (scores->causal && b.shape(y)[rows] != count)) {
    return std::nullopt;
  }
  Id mask = scores->mask;
  if (mask != graph::kNoValue) {
    const Shape wanted({examples, 1, 1, count});
    const auto one = OfOneHead(b, mask, wanted);
    if (!one || b.shape(*one) != wanted) return std::nullopt;
    // Attention takes no infinite bias.
    mask = b.Binary("max", b.Squeeze(*one, {1, 2}), -1e30);
  }
  std::map<Id, Id> made;
  std::vector<Id> inputs;
  for (const Id value : {queries->value, keys->value, values->value}) {
    if (!layout->rows_first) {
      inputs.push_back(value);
    } else {
      const auto unturned = Unturned(b, value, made);
      inputs.push_back(unturned ? *unturned : b.Transpose(value, kTurn));
    }
  }
  if (mask != graph::kNoValue) inputs.push_back(mask);
  const Id result = b.Node("attention", inputs,
                           {{"heads", queries->heads},
                            {"scale", scores->scale * queries->scale * keys->scale},
                            {"causal", int64_t{scores->causal}}});
  return layout->rows_first ? b.Transpose(result, kTurn) : result;
}

std::optional<Id> AttentionRows(Builder& b, Id y) {
  const graph::Node* turned = b.Producer(y, "transpose");
  if (turned == nullptr || turned->attributes.Ints("perm") != kTurn) return std::nullopt;
  Id x = turned->inputs[0];
  for (const char* op : {"bias_add", "matmul"}) {
    if (const graph::Node* node = b.Producer(x, op)) x = node->inputs[0];
  }
  const graph::Node* first = b.Producer(x, "transpose");
  if (first == nullptr || b.Producer(first->inputs[0], "attention") == nullptr) return std::nullopt;
  std::map<Id, Id> made;
  return Unturned(b, turned->inputs[0], made);
}

}  // namespace lepton::onnx::patterns
