// Activations, written with exponentials, comparisons and sums.
#include <cmath>
#include <numbers>

#include "runtime/formats/onnx/rules.h"

namespace lepton::onnx {
namespace rules_activation {

// scale * (x > 0 ? x : alpha * (exp(x / width) - 1))
Id Exponential(Builder& b, Id x, double alpha, double width, double scale) {
  const Id negative =
      b.Mul(b.Add(b.Unary("exp", b.Binary("div", b.Binary("min", x, 0.0), width)), -1.0), alpha);
  return b.Mul(b.Select(b.Binary("greater", x, 0.0), x, negative), scale);
}

void Celu(Call& c) {
  const double alpha = c.Float("alpha", 1);
  c.Set(0, Exponential(c.b, c.in(0), alpha, alpha, 1));
}

void Elu(Call& c) {
  c.Set(0, Exponential(c.b, c.in(0), c.Float("alpha", 1), 1, 1));
}

void Selu(Call& c) {
  c.Set(0, Exponential(c.b, c.in(0), c.Float("alpha", 1.67326319217681884765625), 1,
                       c.Float("gamma", 1.05070102214813232421875)));
}

Id HardSigmoidOf(Builder& b, Id x, double alpha, double beta) {
  return b.Binary("min", b.Binary("max", b.Add(b.Mul(x, alpha), beta), 0.0), 1.0);
}

void HardSigmoid(Call& c) {
  c.Set(0, HardSigmoidOf(c.b, c.in(0), c.Float("alpha", 0.2), c.Float("beta", 0.5)));
}

void HardSwish(Call& c) {
  c.Set(0, c.b.Mul(c.in(0), HardSigmoidOf(c.b, c.in(0), 1.0 / 6, 0.5)));
}

void LeakyRelu(Call& c) {
  const Id x = c.in(0);
  c.Set(0, c.b.Select(c.b.Binary("less", x, 0.0), c.b.Mul(x, c.Float("alpha", 0.01)), x));
}

void PRelu(Call& c) {
  const Id x = c.in(0);
  c.Set(0, c.b.Select(c.b.Binary("less", x, 0.0), c.b.Mul(x, c.in(1)), x));
}

void Relu(Call& c) {
  const Id x = c.in(0);
  c.Set(0, c.b.dtype(x) == DType::kF32 ? c.b.Node("relu", {x}) : c.b.Binary("max", x, 0.0));
}

void ThresholdedRelu(Call& c) {
  const Id x = c.in(0);
  c.Set(0, c.b.Select(c.b.Binary("greater", x, c.Float("alpha", 1)), x, c.b.Like(x, 0)));
}

Id GeluOf(Builder& b, Id x, bool by_tanh) {
  if (b.dtype(x) == DType::kF32) return b.Node(by_tanh ? "gelu_tanh" : "gelu", {x});
  const Id inner = by_tanh ? b.Unary("tanh", b.Mul(b.Add(x, b.Mul(b.Mul(x, b.Mul(x, x)), 0.044715)),
                                                   std::sqrt(2 / std::numbers::pi)))
                           : b.Unary("erf", b.Mul(x, std::sqrt(0.5)));
  return b.Mul(b.Mul(x, b.Add(inner, 1.0)), 0.5);
}

void Gelu(Call& c) {
  const std::string how = c.Text("approximate", "none");
  if (how != "none" && how != "tanh") FailInvalid("approximate: must be none or tanh");
  c.Set(0, GeluOf(c.b, c.in(0), how == "tanh"));
}

// log(1 + exp(x)), without overflow.
Id SoftplusOf(Builder& b, Id x) {
  const Id small = b.Unary("log", b.Add(b.Unary("exp", b.Unary("neg", b.Unary("abs", x))), 1.0));
  return b.Add(b.Binary("max", x, 0.0), small);
}

void Softplus(Call& c) {
  c.Set(0, SoftplusOf(c.b, c.in(0)));
}

void Mish(Call& c) {
  c.Set(0, c.b.Mul(c.in(0), c.b.Unary("tanh", SoftplusOf(c.b, c.in(0)))));
}

void Softsign(Call& c) {
  const Id x = c.in(0);
  c.Set(0, c.b.Div(x, c.b.Add(c.b.Unary("abs", x), 1.0)));
}

void Shrink(Call& c) {
  const Id x = c.in(0);
  const double lambda = c.Float("lambd", 0.5);
  const double bias = c.Float("bias", 0);
  const Id low = c.b.Select(c.b.Binary("less", x, -lambda), c.b.Add(x, bias), c.b.Like(x, 0));
  c.Set(0, c.b.Select(c.b.Binary("greater", x, lambda), c.b.Add(x, -bias), low));
}

// Before operator set 13: over all axes from `axis` on at once.
template <Id (Builder::*function)(Id, int64_t)>
void Normalized(Call& c) {
  const int64_t named = c.Int("axis", c.version() >= 13 ? -1 : 1);
  // Where axes are joined, those beside them are no others, whatever the version.
  if (c.version() >= 13 || (c.joined(0) && c.OwnAxis(0, named) == c.OwnAxis(0, -1))) {
    return c.Set(0, (c.b.*function)(c.whole(0), c.OwnAxis(0, named)), c.groups(0));
  }
  const Id x = c.in(0);
  const int axis = c.b.Axis(c.Int("axis", 1), c.b.rank(x));
  const Ints extents = Extents(c.b.shape(x));
  if (axis == c.b.rank(x) - 1) return c.Set(0, (c.b.*function)(x, axis));
  const int64_t rows = c.b.Merged({extents.begin(), extents.begin() + axis});
  const int64_t columns = c.b.Merged({extents.begin() + axis, extents.end()});
  c.Set(0, c.b.Reshape((c.b.*function)(c.b.Reshape(x, {rows, columns}), -1), extents));
}

void Hardmax(Call& c) {
  const Id x = c.in(0);
  const int axis = c.b.Axis(c.Int("axis", c.version() >= 13 ? -1 : 1), c.b.rank(x));
  if (c.version() < 13 && axis != c.b.rank(x) - 1) FailUnsupported("several axes at once");
  const Id best = c.b.Node(
      "arg_extreme", {x}, {{"axis", int64_t{axis}}, {"largest", int64_t{1}}, {"last", int64_t{0}}});
  Ints along(c.b.rank(x), 1);
  along[axis] = c.b.shape(x)[axis];
  if (along[axis] < 0) FailUnsupported("the largest of an open axis");
  const Id numbers =
      c.b.Reshape(c.b.Constant(TensorOf(AllAxes(static_cast<int>(along[axis])))), along);
  c.Set(0, c.b.Convert(c.b.Binary("equal", numbers, best), c.b.dtype(x)));
}

constexpr std::string_view kFloats = "f16, bf16, f32, f64";

constexpr Rule kRules[] = {
    {"Celu", 12, kFloats, Celu},
    {"Elu", 6, kFloats, Elu},
    {"Gelu", 20, kFloats, Gelu},
    {"HardSigmoid", 6, kFloats, HardSigmoid},
    {"HardSwish", 14, kFloats, HardSwish},
    {"Hardmax", 1, kFloats, Hardmax},
    {"LeakyRelu", 6, kFloats, LeakyRelu},
    {"LogSoftmax", 1, kFloats, Normalized<&Builder::LogSoftmax>},
    {"Mish", 18, kFloats, Mish},
    {"PRelu", 7, "all numbers", PRelu},
    {"Relu", 1, "all numbers", Relu},
    {"Selu", 6, kFloats, Selu},
    {"Shrink", 9, "all numbers", Shrink},
    {"Softmax", 1, kFloats, Normalized<&Builder::Softmax>},
    {"Softplus", 1, kFloats, Softplus},
    {"Softsign", 1, kFloats, Softsign},
    {"ThresholdedRelu", 10, kFloats, ThresholdedRelu},
};

}  // namespace rules_activation

std::span<const Rule> ActivationRules() {
  return rules_activation::kRules;
}

}  // namespace lepton::onnx
