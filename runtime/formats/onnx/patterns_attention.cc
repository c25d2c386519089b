// Attention, written out by others as products and a softmax per head, found again.
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
  if (moved == nullptr || moved->attributes.Ints("perm") != Ints{0, 2, 1, 3}) return std::nullopt;
  const graph::Node* mixed = b.Producer(moved->inputs[0], "batch_matmul");
  if (mixed == nullptr || mixed->attributes.Int("transpose_a") != 0 ||
      mixed->attributes.Int("transpose_b") != 0) {
    return std::nullopt;
  }
  const graph::Node* softmax = b.Producer(mixed->inputs[0], "softmax");
  const auto values = SplitHeads(b, mixed->inputs[1], {0, 2, 1, 3});
  if (softmax == nullptr || !values || values->scale != 1) return std::nullopt;
  const auto scores = TakeApart(b, softmax->inputs[0]);
  if (!scores) return std::nullopt;
  const auto queries = SplitHeads(b, scores->queries, {0, 2, 1, 3});
  const auto keys =
      SplitHeads(b, scores->keys, scores->swapped ? Ints{0, 2, 1, 3} : Ints{0, 2, 3, 1});
  if (!queries || !keys || queries->heads != keys->heads || queries->heads != values->heads ||
      queries->size != keys->size || b.type(keys->value) != b.type(values->value)) {
    return std::nullopt;
  }
  const Shape& q = b.shape(queries->value);
  const Shape& k = b.shape(keys->value);
  if (b.shape(y) != q || (scores->causal && q[1] != k[1])) return std::nullopt;
  std::vector<Id> inputs = {queries->value, keys->value, values->value};
  if (scores->mask != graph::kNoValue) {
    if (b.shape(scores->mask) != Shape({q[0], 1, 1, k[1]})) return std::nullopt;
    inputs.push_back(b.Squeeze(scores->mask, {1, 2}));
  }
  return b.Node("attention", inputs,
                {{"heads", queries->heads},
                 {"scale", scores->scale * queries->scale * keys->scale},
                 {"causal", int64_t{scores->causal}}});
}

}  // namespace lepton::onnx::patterns
