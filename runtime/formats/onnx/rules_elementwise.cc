// Operators that work element by element.
#include <algorithm>
#include <string>

#include "runtime/formats/onnx/rules.h"

namespace lepton::onnx {
namespace rules_elementwise {

// The name that unary_math and binary_math have for an operator.
template <size_t n>
struct Name {
  constexpr Name(const char (&text)[n]) { std::copy_n(text, n, value); }
  char value[n];
};

template <Name function>
void Unary(Call& c) {
  c.Set(0, c.b.Unary(function.value, c.in(0)));
}

template <Name function>
void Binary(Call& c) {
  if (c.HasAttribute("axis")) FailUnsupported("broadcasting along an attribute's axis");
  c.Set(0, c.b.Binary(function.value, c.in(0), c.in(1)));
}

template <Name function>
void Variadic(Call& c) {
  Id y = c.in(0);
  for (int i = 1; i < c.inputs(); ++i) y = c.b.Binary(function.value, y, c.in(i));
  c.Set(0, y);
}

void Mean(Call& c) {
  Id y = c.in(0);
  for (int i = 1; i < c.inputs(); ++i) y = c.b.Add(y, c.in(i));
  c.Set(0, c.b.Binary("div", y, static_cast<double>(c.inputs())));
}

// Powers of unlike types: in f64, and the result is of the base's type.
void Pow(Call& c) {
  const Id x = c.in(0);
  const Id y = c.in(1);
  const DType type = c.b.dtype(x);
  const auto power =
      type == DType::kF32 && c.b.rank(y) <= c.b.rank(x) ? c.b.Number(y) : std::nullopt;
  if (power == 1.0) return c.Set(0, x);
  if (power == 2.0) return c.Set(0, c.b.Mul(x, x));
  if (power == 3.0) return c.Set(0, c.b.Mul(c.b.Mul(x, x), x));
  if (power == 0.5) return c.Set(0, c.b.Unary("sqrt", x));
  if (type == c.b.dtype(y)) return c.Set(0, c.b.Binary("pow", x, y));
  const bool integers = !IsFloating(type) && !IsFloating(c.b.dtype(y));
  const DType common = integers ? DType::kI64 : DType::kF64;
  c.Set(0, c.b.Convert(c.b.Binary("pow", c.b.Convert(x, common), c.b.Convert(y, common)), type));
}

void Mod(Call& c) {
  const bool fmod = c.Int("fmod", 0) != 0;
  if (!fmod && IsFloating(c.b.dtype(c.in(0)))) FailInvalid("fmod: must be 1 for floats");
  c.Set(0, c.b.Binary(fmod ? "fmod" : "mod", c.in(0), c.in(1)));
}

void BitShift(Call& c) {
  const bool left = c.Text("direction", "") == "LEFT";
  c.Set(0, c.b.Binary(left ? "shift_left" : "shift_right", c.in(0), c.in(1)));
}

void Where(Call& c) {
  c.Set(0, c.b.Select(c.in(0), c.in(1), c.in(2)));
}

void Clip(Call& c) {
  Id x = c.in(0);
  if (c.version() < 11) {
    if (c.HasAttribute("min")) x = c.b.Binary("max", x, c.Float("min", 0));
    if (c.HasAttribute("max")) x = c.b.Binary("min", x, c.Float("max", 0));
  } else {
    if (c.has(1)) x = c.b.Binary("max", x, c.in(1));
    if (c.has(2)) x = c.b.Binary("min", x, c.in(2));
  }
  c.Set(0, x);
}

void Cast(Call& c) {
  c.Set(0, c.b.Convert(c.in(0), Must(DTypeFromCode(static_cast<int32_t>(c.Int("to", 0))))));
}

void CastLike(Call& c) {
  c.Set(0, c.b.Convert(c.in(0), c.b.dtype(c.in(1))));
}

void IsInf(Call& c) {
  const bool negative = c.Int("detect_negative", 1) != 0;
  const bool positive = c.Int("detect_positive", 1) != 0;
  if (!negative && !positive) FailUnsupported("neither sign");
  c.Set(0, c.b.Unary(!negative ? "is_pos_inf" : !positive ? "is_neg_inf" : "is_inf", c.in(0)));
}

void Identity(Call& c) {
  c.SetRef(0, c.ref(0));
}

constexpr std::string_view kFloats = "f16, bf16, f32, f64";
constexpr std::string_view kNumbers = "all numbers";

constexpr Rule kRules[] = {
    {"Abs", 1, kNumbers, Unary<"abs">},
    {"Acos", 7, kFloats, Unary<"acos">},
    {"Acosh", 9, kFloats, Unary<"acosh">},
    {"Add", 1, kNumbers, Binary<"add">},
    {"And", 7, "bool", Binary<"and">},
    {"Asin", 7, kFloats, Unary<"asin">},
    {"Asinh", 9, kFloats, Unary<"asinh">},
    {"Atan", 7, kFloats, Unary<"atan">},
    {"Atanh", 9, kFloats, Unary<"atanh">},
    {"BitShift", 11, "integers", BitShift},
    {"BitwiseAnd", 18, "integers", Binary<"bit_and">},
    {"BitwiseNot", 18, "integers", Unary<"bit_not">},
    {"BitwiseOr", 18, "integers", Binary<"bit_or">},
    {"BitwiseXor", 18, "integers", Binary<"bit_xor">},
    {"Cast", 6, "all but text", Cast},
    {"CastLike", 15, "all but text", CastLike},
    {"Ceil", 1, kFloats, Unary<"ceil">},
    {"Clip", 6, kNumbers, Clip},
    {"Cos", 7, kFloats, Unary<"cos">},
    {"Cosh", 9, kFloats, Unary<"cosh">},
    {"Div", 1, kNumbers, Binary<"div">},
    {"Equal", 7, "all but text", Binary<"equal">},
    {"Erf", 9, kFloats, Unary<"erf">},
    {"Exp", 1, kFloats, Unary<"exp">},
    {"Floor", 1, kFloats, Unary<"floor">},
    {"Greater", 7, kNumbers, Binary<"greater">},
    {"GreaterOrEqual", 12, kNumbers, Binary<"greater_equal">},
    {"Identity", 1, "all", Identity},
    {"IsInf", 10, kFloats, IsInf},
    {"IsNaN", 9, kFloats, Unary<"is_nan">},
    {"Less", 7, kNumbers, Binary<"less">},
    {"LessOrEqual", 12, kNumbers, Binary<"less_equal">},
    {"Log", 1, kFloats, Unary<"log">},
    {"Max", 8, kNumbers, Variadic<"max">},
    {"Mean", 8, kFloats, Mean},
    {"Min", 8, kNumbers, Variadic<"min">},
    {"Mod", 10, kNumbers, Mod},
    {"Mul", 1, kNumbers, Binary<"mul">},
    {"Neg", 1, kNumbers, Unary<"neg">},
    {"Not", 1, "bool", Unary<"not">},
    {"Or", 7, "bool", Binary<"or">},
    {"Pow", 7, kNumbers, Pow},
    {"Reciprocal", 1, kFloats, Unary<"reciprocal">},
    {"Round", 11, kFloats, Unary<"round">},
    {"Sigmoid", 1, kFloats, Unary<"sigmoid">},
    {"Sign", 9, kNumbers, Unary<"sign">},
    {"Sin", 7, kFloats, Unary<"sin">},
    {"Sinh", 9, kFloats, Unary<"sinh">},
    {"Sqrt", 1, kFloats, Unary<"sqrt">},
    {"Sub", 1, kNumbers, Binary<"sub">},
    {"Sum", 8, kNumbers, Variadic<"add">},
    {"Tan", 7, kFloats, Unary<"tan">},
    {"Tanh", 1, kFloats, Unary<"tanh">},
    {"Where", 9, "all but text", Where},
    {"Xor", 7, "bool", Binary<"xor">},
};

}  // namespace rules_elementwise

std::span<const Rule> ElementwiseRules() {
  return rules_elementwise::kRules;
}

}  // namespace lepton::onnx
