// Parts that other programs write out, found again: gelu, silu, layer_norm, rms_norm.
#include <cmath>
#include <numbers>

#include "runtime/formats/onnx/patterns.h"

namespace lepton::onnx {
namespace patterns {

bool Near(double a, double b) {
  return std::abs(a - b) <= 1e-4 * std::abs(b);
}

// y = constant * factors[0] * factors[1]...
Factors FactorsOf(Builder& b, Id y, int depth) {
  if (depth > 0) {
    if (const auto* scale = b.Producer(y, "scale")) {
      Factors factors = FactorsOf(b, scale->inputs[0], depth - 1);
      factors.constant *= scale->attributes.Float("factor", 1);
      return factors;
    }
    if (const auto* div = b.Producer(y, "div")) {
      if (const auto divisor = b.Number(div->inputs[1])) {
        Factors factors = FactorsOf(b, div->inputs[0], depth - 1);
        factors.constant /= *divisor;
        return factors;
      }
    }
    if (const auto* mul = b.Producer(y, "mul")) {
      Factors factors = FactorsOf(b, mul->inputs[0], depth - 1);
      const Factors more = FactorsOf(b, mul->inputs[1], depth - 1);
      factors.constant *= more.constant;
      factors.values.insert(factors.values.end(), more.values.begin(), more.values.end());
      return factors;
    }
  }
  return {1, {y}};
}

// x and a number of x + number.
std::optional<std::pair<Id, double>> PlusNumber(Builder& b, Id y) {
  const graph::Node* add = b.Producer(y, "add");
  if (add == nullptr) return std::nullopt;
  for (const int i : {0, 1}) {
    if (const auto number = b.Number(add->inputs[i])) return {{add->inputs[1 - i], *number}};
  }
  return std::nullopt;
}

std::optional<Id> Function(Builder& b, Id y, std::string_view name) {
  if (const graph::Node* core = b.Producer(y, name)) return core->inputs[0];
  const graph::Node* unary = b.Producer(y, "unary_math");
  if (unary == nullptr || unary->attributes.Text("function") != name) return std::nullopt;
  return unary->inputs[0];
}

// x of 0.5 * x * (1 + erf(x / sqrt(2))).
std::optional<Id> Gelu(Builder& b, const Factors& factors) {
  if (factors.values.size() != 2 || !Near(factors.constant, 0.5)) return std::nullopt;
  for (const int i : {0, 1}) {
    const Id x = factors.values[1 - i];
    const auto sum = PlusNumber(b, factors.values[i]);
    if (!sum || sum->second != 1) continue;
    const auto inner = Function(b, sum->first, "erf");
    if (!inner) continue;
    const Factors argument = FactorsOf(b, *inner, 2);
    if (argument.values == std::vector<Id>{x} && Near(argument.constant, 1 / std::numbers::sqrt2)) {
      return x;
    }
  }
  return std::nullopt;
}

// x of 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))).
std::optional<Id> GeluTanh(Builder& b, const Factors& factors) {
  if (factors.values.size() != 2 || !Near(factors.constant, 0.5)) return std::nullopt;
  for (const int i : {0, 1}) {
    const Id x = factors.values[1 - i];
    const auto sum = PlusNumber(b, factors.values[i]);
    const auto inner = sum && sum->second == 1 ? Function(b, sum->first, "tanh") : std::nullopt;
    if (!inner) continue;
    const Factors argument = FactorsOf(b, *inner, 1);
    if (argument.values.size() != 1 || !Near(argument.constant, std::sqrt(2 / std::numbers::pi))) {
      continue;
    }
    const graph::Node* add = b.Producer(argument.values[0], "add");
    if (add == nullptr || (add->inputs[0] != x && add->inputs[1] != x)) continue;
    const Factors cube = FactorsOf(b, add->inputs[add->inputs[0] == x ? 1 : 0], 4);
    if (cube.values == std::vector<Id>{x, x, x} && Near(cube.constant, 0.044715)) return x;
  }
  return std::nullopt;
}

// x of x * sigmoid(x).
std::optional<Id> Silu(Builder& b, const Factors& factors) {
  if (factors.values.size() != 2 || factors.constant != 1) return std::nullopt;
  for (const int i : {0, 1}) {
    if (Function(b, factors.values[i], "sigmoid") == factors.values[1 - i]) {
      return factors.values[1 - i];
    }
  }
  return std::nullopt;
}

// The same elements before reshapes.
Id Unshaped(Builder& b, Id y) {
  while (const graph::Node* reshape = b.Producer(y, "reshape")) y = reshape->inputs[0];
  return y;
}

// x of the mean of x over its last axis, whose extent stays as 1.
std::optional<Id> LastMean(Builder& b, Id y) {
  const graph::Node* reduce = b.Producer(Unshaped(b, y), "reduce");
  if (reduce == nullptr || reduce->attributes.Text("kind") != "mean") return std::nullopt;
  const Id x = reduce->inputs[0];
  if (reduce->attributes.Int("axis") != b.rank(x) - 1) return std::nullopt;
  Ints kept = Extents(b.shape(x));
  kept.back() = 1;
  if (Extents(b.shape(y)) != kept) return std::nullopt;
  return x;
}

struct Deviation {
  Id x;
  double epsilon;
};
// sqrt(mean(x * x) + epsilon).
std::optional<Deviation> RootMeanSquare(Builder& b, Id y) {
  const auto sum = Function(b, y, "sqrt");
  if (!sum) return std::nullopt;
  const auto parts = PlusNumber(b, *sum);
  if (!parts) return std::nullopt;
  const auto square = LastMean(b, parts->first);
  if (!square) return std::nullopt;
  const graph::Node* mul = b.Producer(*square, "mul");
  if (mul == nullptr || mul->inputs[0] != mul->inputs[1]) return std::nullopt;
  return Deviation{mul->inputs[0], parts->second};
}

// What is divided, and by which root mean square: u / s or u * (1 / s).
struct Quotient {
  Id value;
  Deviation by;
};
std::optional<Quotient> Normalised(Builder& b, Id y) {
  if (const graph::Node* div = b.Producer(y, "div")) {
    const auto by = RootMeanSquare(b, div->inputs[1]);
    if (by) return Quotient{div->inputs[0], *by};
  }
  if (const graph::Node* mul = b.Producer(y, "mul")) {
    for (const int i : {0, 1}) {
      const auto root = Function(b, mul->inputs[i], "reciprocal");
      const auto by = root ? RootMeanSquare(b, *root) : std::nullopt;
      if (by) return Quotient{mul->inputs[1 - i], *by};
    }
  }
  return std::nullopt;
}

bool IsRow(Builder& b, Id gain, Id x) {
  return b.dtype(gain) == DType::kF32 && b.shape(gain) == Shape({b.shape(x).back()});
}

// x - mean(x).
std::optional<Id> Centred(Builder& b, Id y) {
  const graph::Node* sub = b.Producer(y, "sub");
  if (sub == nullptr || LastMean(b, sub->inputs[1]) != sub->inputs[0]) return std::nullopt;
  return sub->inputs[0];
}

// One value, or x - mean(x) twice.
bool Same(Builder& b, Id a, Id z) {
  return a == z || (Centred(b, a).has_value() && Centred(b, a) == Centred(b, z));
}

// gain * x / rms(x), of which `y` is the product.
std::optional<Id> RmsNorm(Builder& b, Id y) {
  const graph::Node* mul = b.Producer(y, "mul");
  if (mul == nullptr) return std::nullopt;
  for (const int i : {0, 1}) {
    const Id gain = mul->inputs[i];
    const auto quotient = Normalised(b, mul->inputs[1 - i]);
    if (!quotient || !Same(b, quotient->by.x, quotient->value)) continue;
    if (b.rank(quotient->value) < 2 || !IsRow(b, gain, quotient->value)) continue;
    return b.Node("rms_norm", {quotient->value, gain}, {{"epsilon", quotient->by.epsilon}});
  }
  return std::nullopt;
}

// gain * (x - mean) / deviation + bias, of which `y` is the sum: the product is an rms_norm of what
// is centred already.
std::optional<Id> LayerNorm(Builder& b, Id y) {
  const graph::Node* add = b.Producer(y, "bias_add");
  if (add == nullptr) return std::nullopt;
  const graph::Node* norm = b.Producer(add->inputs[0], "rms_norm");
  if (norm == nullptr) return std::nullopt;
  const auto x = Centred(b, norm->inputs[0]);
  if (!x) return std::nullopt;
  return b.Node("layer_norm", {*x, norm->inputs[1], add->inputs[1]},
                {{"epsilon", norm->attributes.Float("epsilon")}});
}

}  // namespace patterns

Id Builder::Simplify(Id id) {
  using namespace patterns;
  if (dtype(id) != DType::kF32) return id;
  if (Producer(id, "mul") != nullptr || Producer(id, "scale") != nullptr) {
    const Factors factors = FactorsOf(*this, id, 3);
    if (const auto x = Gelu(*this, factors)) return Node("gelu", {*x});
    if (const auto x = GeluTanh(*this, factors)) return Node("gelu_tanh", {*x});
    if (const auto x = Silu(*this, factors)) return Node("silu", {*x});
    if (const auto y = RmsNorm(*this, id)) return *y;
  }
  if (const auto y = LayerNorm(*this, id)) return *y;
  if (const auto y = Attention(*this, id)) return *y;
  if (const auto y = AttentionRows(*this, id)) return *y;
  return id;
}

}  // namespace lepton::onnx
