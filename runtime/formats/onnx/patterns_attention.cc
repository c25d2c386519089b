// Attention, written out by others as products and a softmax per head, found again.
#include <cmath>

#include "runtime/formats/onnx/patterns.h"
#include "runtime/graph/executor.h"

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

// The value for an open sequence of that many, by the part of the graph that follows from
// constants and positions alone; empty when there is more to it.
std::vector<double> ValueForLength(Builder& b, Id id, int64_t length) {
  const graph::Graph& graph = b.graph();
  graph::Graph part(ImportOps());
  std::map<Id, Id> place;
  std::vector<std::pair<Id, HostTensor>> bound;
  std::set<graph::NodeId> needed;
  std::vector<Id> open = {id};
  const auto bind = [&](Id value, HostTensor tensor) {
    place[value] = part.AddParameter("known", tensor.type);
    bound.emplace_back(place[value], std::move(tensor));
  };
  while (!open.empty()) {
    const Id next = open.back();
    open.pop_back();
    if (place.contains(next)) continue;
    if (b.IsConstant(next)) {
      bind(next, b.Evaluate(next, "a mask"));
    } else if (b.Producer(next, "index_range") != nullptr && b.shape(next)[0] == Shape::kSequence) {
      std::vector<double> numbers;
      for (int64_t i = 0; i < length; ++i) numbers.push_back(static_cast<double>(i));
      bind(next, TensorOf(DType::kI32, Shape({length}), numbers));
    } else {
      const graph::NodeId producer = graph.value(next).producer;
      if (producer == graph::kNoNode || needed.size() > 64) return {};
      if (b.Producer(next, "repeat") != nullptr) return {};
      needed.insert(producer);
      for (const Id input : graph.nodes()[producer].inputs) open.push_back(input);
    }
  }
  for (const graph::NodeId node_id : needed) {
    const graph::Node& node = graph.nodes()[node_id];
    std::vector<Id> inputs;
    for (const Id input : node.inputs) inputs.push_back(place.at(input));
    const auto outputs = Must(part.AddNode(node.op->name(), inputs, node.attributes));
    for (size_t i = 0; i < outputs.size(); ++i) place.emplace(node.outputs[i], outputs[i]);
  }
  const Status added = needed.empty() ? Internal("") : part.AddOutput(place.at(id), false);
  if (!added.ok()) return {};
  const auto plan = Must(graph::Plan::Make(part, ImportKernels(), {}, {}));
  for (auto& [value, tensor] : bound) plan->Bind(value, tensor.data.data());
  plan->RunPrologue({});
  plan->Run({});
  const TensorView& view = plan->view(place.at(id));
  return AsDoubles(HostTensor(view.type, view.data));
}

// Whether a mask lets each query see the keys up to its own place: `sees` says what an element
// means.
template <typename Sees>
bool IsCausal(Builder& b, Id mask, const Sees& sees) {
  const Shape& shape = b.shape(mask);
  if (shape.rank() < 2 || shape.back() != shape[shape.rank() - 2]) return false;
  for (int axis = 0; axis + 2 < shape.rank(); ++axis) {
    if (shape[axis] != 1) return false;
  }
  const bool known = b.IsConstant(mask) && shape.back() > 1;
  if (!known && shape.back() != Shape::kSequence) return false;
  const int64_t length = known ? shape.back() : 9;
  const std::vector<double> values =
      known ? AsDoubles(b.Evaluate(mask, "a mask")) : ValueForLength(b, mask, length);
  if (static_cast<int64_t>(values.size()) != length * length) return false;
  for (int64_t query = 0; query < length; ++query) {
    for (int64_t key = 0; key < length; ++key) {
      if (sees(values[query * length + key]) != (key <= query)) return false;
    }
  }
  return true;
}

struct Scores {
  Id queries = graph::kNoValue, keys = graph::kNoValue;
  bool swapped = false;  // keys are [.., keys, size]
  bool causal = false;
  double scale = 1;
  Id mask = graph::kNoValue;  // what is added
};

bool HidesAll(Builder& b, Id value) {
  const auto number = b.Number(value);
  return number && *number <= -1e4;
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
      const auto sees = [&](double chosen) { return (chosen != 0) == (hidden == 2); };
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
    if (!scores.causal && IsCausal(b, mask, [](double bias) { return bias > -1e4; })) {
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
