// Fourier transforms, as products with matrices of cosines and sines.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "runtime/formats/onnx/rules.h"

namespace lepton::onnx {
namespace rules_signal {

// cos or sin of 2 pi i k / n; rows i < inputs, columns k < outputs.
Id Waves(Builder& b, DType type, int64_t inputs, int64_t outputs, int64_t n, bool sine) {
  if (n < 1 || n > (1 << 16) || inputs * outputs > (1 << 26)) FailUnsupported("long transforms");
  std::vector<double> numbers(static_cast<size_t>(inputs * outputs));
  for (int64_t i = 0; i < inputs; ++i) {
    for (int64_t k = 0; k < outputs; ++k) {
      const double angle =
          2 * std::numbers::pi * static_cast<double>(i * k % n) / static_cast<double>(n);
      numbers[i * outputs + k] = sine ? std::sin(angle) : std::cos(angle);
    }
  }
  return b.Constant(TensorOf(type, Shape({inputs, outputs}), numbers));
}

// The transform of the last axis but one of x [..., samples, 1 or 2], to `outputs` frequencies.
Id Transform(Builder& b, Id x, int64_t n, int64_t outputs, bool inverse) {
  const int last = b.rank(x) - 1;
  const int64_t used = std::min(b.shape(x)[last - 1], n);
  x = b.Slice(x, last - 1, 0, 1, used);
  const auto part = [&](int64_t index) { return b.Squeeze(b.Slice(x, last, index, 1, 1), {-1}); };
  const Id cosine = Waves(b, b.dtype(x), used, outputs, n, false);
  const Id sine = Waves(b, b.dtype(x), used, outputs, n, true);
  const Id real = part(0);
  // (a + bi)(cos - i sin) forward, (cos + i sin) backward.
  Id re = b.Matmul(real, cosine);
  Id im = b.Matmul(real, sine);
  if (!inverse) im = b.Unary("neg", im);
  if (b.shape(x).back() == 2) {
    const Id imaginary = part(1);
    const Id cross = b.Matmul(imaginary, sine);
    re = inverse ? b.Sub(re, cross) : b.Add(re, cross);
    im = b.Add(im, b.Matmul(imaginary, cosine));
  }
  const Id y = b.Concat({b.Unsqueeze(re, {-1}), b.Unsqueeze(im, {-1})}, -1);
  return inverse ? b.Mul(y, 1 / static_cast<double>(n)) : y;
}

void Dft(Call& c) {
  Builder& b = c.b;
  const Id x = c.in(0);
  const int rank = b.rank(x);
  if (rank < 3 || b.shape(x).back() < 1 || b.shape(x).back() > 2) {
    FailInvalid("input 0 must end in an axis of 1 or 2");
  }
  const int64_t wanted = c.version() < 20 ? c.Int("axis", 1)
                         : c.has(2)       ? c.Integers(2, "axis").at(0)
                                          : -2;
  const int axis = b.Axis(wanted, rank);
  if (axis == rank - 1) FailInvalid("axis: is the one of the parts");
  const int64_t n = c.has(1) ? c.Integers(1, "dft_length").at(0) : b.shape(x)[axis];
  if (b.shape(x)[axis] < 0) FailUnsupported("a transform of an open length");
  const bool half = c.Int("onesided", 0) != 0;
  Ints order = AllAxes(rank);
  std::swap(order[axis], order[rank - 2]);
  const Id y =
      Transform(b, b.Transpose(x, order), n, half ? n / 2 + 1 : n, c.Int("inverse", 0) != 0);
  c.Set(0, b.Transpose(y, order));
}

void Stft(Call& c) {
  Builder& b = c.b;
  const Id x = c.in(0);  // [batch, samples, 1 or 2]
  if (b.rank(x) != 3 || b.shape(x).back() < 1 || b.shape(x).back() > 2) {
    FailInvalid("input 0 must be [batch, samples, 1 or 2]");
  }
  const int64_t step = c.Integers(1, "frame_step").at(0);
  const int64_t length = c.has(3)   ? c.Integers(3, "frame_length").at(0)
                         : c.has(2) ? b.shape(c.in(2)).elements()
                                    : 0;
  const int64_t samples = b.shape(x)[1], parts = b.shape(x)[2];
  if (samples < 0) FailUnsupported("a transform of an open length");
  if (step < 1 || length < 1 || length > samples) FailInvalid("frame_step or frame_length");
  const int64_t frames = (samples - length) / step + 1;
  Id windowed = b.Strided(x, {b.shape(x)[0], frames, length, parts},
                          {samples * parts, step * parts, parts, 1});
  if (c.has(2)) windowed = b.Mul(windowed, b.Reshape(c.in(2), {length, 1}));
  const bool half = c.Int("onesided", 1) != 0;
  c.Set(0, Transform(b, windowed, length, half ? length / 2 + 1 : length, false));
}

constexpr Rule kRules[] = {
    {"DFT", 17, "f32, f64", Dft},
    {"STFT", 17, "f32, f64", Stft},
};

}  // namespace rules_signal

std::span<const Rule> SignalRules() {
  return rules_signal::kRules;
}

}  // namespace lepton::onnx
