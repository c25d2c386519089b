// Quantised operators.
#include <optional>

#include "runtime/formats/onnx/convolution.h"

namespace lepton::onnx {
namespace rules_quantize {

// A scale or zero point, one or one per channel, as a tensor that broadcasts along `axis`.
Id Along(Builder& b, Id x, int rank, int64_t axis) {
  if (b.shape(x).elements() == 1) return b.Reshape(x, {});
  Ints extents(rank, 1);
  extents[b.Axis(axis, rank)] = b.shape(x).elements();
  return b.Reshape(x, extents);
}

// Rounded half to even and saturated to the type of the zero point.
Id Quantize(Builder& b, Id x, Id scale, std::optional<Id> zero, DType type, int64_t axis) {
  Id y = b.Unary("round", b.Div(x, Along(b, scale, b.rank(x), axis)));
  if (zero) y = b.Add(y, b.Convert(Along(b, *zero, b.rank(x), axis), b.dtype(y)));
  return b.Convert(y, type);
}

Id Dequantize(Builder& b, Id x, Id scale, std::optional<Id> zero, int64_t axis) {
  Id y = b.Convert(x, b.dtype(scale));
  if (zero) y = b.Sub(y, b.Convert(Along(b, *zero, b.rank(x), axis), b.dtype(scale)));
  return b.Mul(y, Along(b, scale, b.rank(x), axis));
}

std::optional<Id> Zero(Call& c, int index) {
  return c.has(index) ? std::optional<Id>(c.in(index)) : std::nullopt;
}

// Since operator set 21.
void RefuseBlocks(Call& c) {
  if (c.Int("block_size", 0) != 0) FailUnsupported("block_size: scales by block");
}

void QuantizeLinear(Call& c) {
  RefuseBlocks(c);
  if (!c.has(2) && c.Int("output_dtype", 0) != 0) {
    FailUnsupported("output_dtype without a zero point, whose type it would follow,");
  }
  const DType type = c.has(2) ? c.b.dtype(c.in(2)) : DType::kU8;
  const Id x = c.b.Convert(c.in(0), DType::kF32);
  c.Set(0, Quantize(c.b, x, c.in(1), Zero(c, 2), type, c.Int("axis", 1)));
}

void DequantizeLinear(Call& c) {
  RefuseBlocks(c);
  c.Set(0, Dequantize(c.b, c.in(0), c.in(1), Zero(c, 2), c.Int("axis", 1)));
}

void DynamicQuantizeLinear(Call& c) {
  Builder& b = c.b;
  const Id x = c.in(0);
  const Ints axes = AllAxes(b.rank(x));
  const Id low = b.Binary("min", b.Reduce("min", x, axes, false), 0.0);
  const Id high = b.Binary("max", b.Reduce("max", x, axes, false), 0.0);
  const Id scale = b.Binary("div", b.Sub(high, low), 255.0);
  const Id zero = b.Convert(b.Unary("round", b.Unary("neg", b.Div(low, scale))), DType::kU8);
  c.Set(0, Quantize(b, x, scale, zero, DType::kU8, 0));
  c.Set(1, scale);
  c.Set(2, zero);
}

// x minus its zero point, as i32.
Id Centred(Builder& b, Id x, std::optional<Id> zero, int64_t axis) {
  const Id wide = b.Convert(x, DType::kI32);
  return zero ? b.Sub(wide, b.Convert(Along(b, *zero, b.rank(x), axis), DType::kI32)) : wide;
}

void MatMulInteger(Call& c) {
  c.Set(0,
        c.b.Matmul(Centred(c.b, c.in(0), Zero(c, 2), -2), Centred(c.b, c.in(1), Zero(c, 3), -1)));
}

void QLinearMatMul(Call& c) {
  Builder& b = c.b;
  const Id y = b.Matmul(Centred(b, c.in(0), c.in(2), -2), Centred(b, c.in(3), c.in(5), -1));
  const Id scale = b.Mul(Along(b, c.in(1), b.rank(y), -2), Along(b, c.in(4), b.rank(y), -1));
  c.Set(0, Quantize(b, b.Mul(b.Convert(y, DType::kF32), scale), c.in(6), c.in(7), b.dtype(c.in(7)),
                    -1));
}

Id IntegerConvolution(Call& c, Id x, Id w) {
  const Ints extents = Extents(c.b.shape(w));
  if (extents.size() < 3) FailInvalid("weights must have at least three axes");
  const Windows windows = ReadWindows(c, c.b.shape(x), Ints(extents.begin() + 2, extents.end()));
  return Convolve(c.b, x, w, windows, c.Int("group", 1));
}

void ConvInteger(Call& c) {
  c.Set(0, IntegerConvolution(c, Centred(c.b, c.in(0), Zero(c, 2), 1),
                              Centred(c.b, c.in(1), Zero(c, 3), 0)));
}

void QLinearConv(Call& c) {
  Builder& b = c.b;
  Id y = IntegerConvolution(c, Centred(b, c.in(0), c.in(2), 1), Centred(b, c.in(3), c.in(5), 0));
  if (c.has(8)) y = b.Add(y, Along(b, c.in(8), b.rank(y), 1));
  const Id scale = b.Mul(b.Reshape(c.in(1), {}), Along(b, c.in(4), b.rank(y), 1));
  c.Set(0, Quantize(b, b.Mul(b.Convert(y, DType::kF32), scale), c.in(6), c.in(7), b.dtype(c.in(7)),
                    1));
}

constexpr Rule kRules[] = {
    {"ConvInteger", 10, "i8, u8", ConvInteger},
    {"DequantizeLinear", 10, "i8, u8, i32", DequantizeLinear},
    {"DynamicQuantizeLinear", 11, "f32", DynamicQuantizeLinear},
    {"MatMulInteger", 10, "i8, u8", MatMulInteger},
    {"QLinearConv", 10, "i8, u8", QLinearConv},
    {"QLinearMatMul", 10, "i8, u8", QLinearMatMul},
    {"QuantizeLinear", 10, "f32, i32", QuantizeLinear},
};

}  // namespace rules_quantize

std::span<const Rule> QuantizeRules() {
  return rules_quantize::kRules;
}

}  // namespace lepton::onnx
