// The loops, compiled by loops_avx512.cc, loops_avx2.cc and loops_baseline.cc with different flags.
// Everything is in an unnamed namespace and nothing of the standard library's inline functions is
// used, so that no function compiled for a wide instruction set can end up being called on a CPU
// without it. Not a header for anyone else.
#include <math.h>
#include <string.h>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "runtime/kernels/cpu/simd/loops.h"

namespace lepton::kernels::simd {
namespace {

#define LEPTON_INLINE inline __attribute__((always_inline))
#define LEPTON_LAMBDA __attribute__((always_inline))

// Sixteen floats; the compiler cuts them into whatever registers there are.
typedef float Lanes __attribute__((vector_size(64)));
typedef double WideLanes __attribute__((vector_size(128)));
typedef uint32_t Words __attribute__((vector_size(64)));
constexpr int64_t kLanes = 16;

LEPTON_INLINE Lanes Load(const float* x) {
  Lanes lanes;
  memcpy(&lanes, x, sizeof(lanes));
  return lanes;
}

LEPTON_INLINE Lanes LoadTail(const float* x, int64_t count, float filler) {
  Lanes lanes;
  for (int64_t i = 0; i < kLanes; ++i) lanes[i] = i < count ? x[i] : filler;
  return lanes;
}

LEPTON_INLINE float SumLanes(const Lanes& lanes) {
  float parts[kLanes];
  memcpy(parts, &lanes, sizeof(parts));
  for (int64_t half = kLanes / 2; half > 0; half /= 2) {
    for (int64_t i = 0; i < half; ++i) parts[i] += parts[i + half];
  }
  return parts[0];
}

template <typename Term>
LEPTON_INLINE float SumTerms(int64_t n, Term term) {
  Lanes sums = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += term(i + lane);
  }
  for (int64_t lane = 0; i + lane < n; ++lane) sums[lane] += term(i + lane);
  return SumLanes(sums);
}

LEPTON_INLINE float MaxOf(int64_t n, const float* x) {
  Lanes top = LoadTail(x, n < kLanes ? n : kLanes, x[0]);
  int64_t i = kLanes;
  for (; i + kLanes <= n; i += kLanes) {
    const Lanes next = Load(x + i);
    top = next > top ? next : top;
  }
  float best = top[0];
  for (int64_t lane = 1; lane < kLanes; ++lane) best = top[lane] > best ? top[lane] : best;
  for (; i < n; ++i) best = x[i] > best ? x[i] : best;
  return best;
}

LEPTON_INLINE float FromBits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

LEPTON_INLINE uint32_t ToBits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

// a * b + c, rounded once. Where the CPU cannot, the library computes the same, slowly.
LEPTON_INLINE float Fma(float a, float b, float c) {
  return __builtin_fmaf(a, b, c);
}

// e^x to about 2 units in the last place (the polynomial of Cephes' expf). Saturates to the
// smallest normal and the largest finite number; NaN stays NaN.
LEPTON_INLINE float Exp(float x) {
  x = x < -87.3365f ? -87.3365f : x;
  x = x > 88.3762f ? 88.3762f : x;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float shifted = Fma(x, 1.44269504088896341f, kRound);
  const float n = shifted - kRound;
  const float r = Fma(n, 2.12194440e-4f, Fma(n, -0.693359375f, x));
  float p = 1.9875691500e-4f;
  p = Fma(p, r, 1.3981999507e-3f);
  p = Fma(p, r, 8.3334519073e-3f);
  p = Fma(p, r, 4.1665795894e-2f);
  p = Fma(p, r, 1.6666665459e-1f);
  p = Fma(p, r, 5.0000001201e-1f);
  const float mantissa = Fma(p, r * r, r) + 1.0f;
  const uint32_t exponent = ToBits(shifted) - ToBits(kRound) + 127u;
  return mantissa * FromBits(exponent << 23);
}

LEPTON_INLINE float Tanh(float x) {
  const float size = fabsf(x);
  const float z = x * x;
  float p = -5.70498872745e-3f;
  p = Fma(p, z, 2.06390887954e-2f);
  p = Fma(p, z, -5.37397155531e-2f);
  p = Fma(p, z, 1.33314422036e-1f);
  p = Fma(p, z, -3.33332819422e-1f);
  const float near_zero = Fma(p * z, x, x);
  const float far = 1.0f - 2.0f / (Exp(2.0f * size) + 1.0f);
  return size < 0.625f ? near_zero : copysignf(far, x);
}

LEPTON_INLINE float Sigmoid(float x) {
  return 1.0f / (1.0f + Exp(-x));
}

void AddLoop(int64_t count, const float* __restrict a, const float* __restrict b,
             float* __restrict y) {
  for (int64_t i = 0; i < count; ++i) y[i] = a[i] + b[i];
}

void MulLoop(int64_t count, const float* __restrict a, const float* __restrict b,
             float* __restrict y) {
  for (int64_t i = 0; i < count; ++i) y[i] = a[i] * b[i];
}

void SubLoop(int64_t count, const float* __restrict a, const float* __restrict b,
             float* __restrict y) {
  for (int64_t i = 0; i < count; ++i) y[i] = a[i] - b[i];
}

void DivLoop(int64_t count, const float* __restrict a, const float* __restrict b,
             float* __restrict y) {
  for (int64_t i = 0; i < count; ++i) y[i] = a[i] / b[i];
}

void ScaleLoop(int64_t count, float factor, const float* __restrict x, float* __restrict y) {
  for (int64_t i = 0; i < count; ++i) y[i] = factor * x[i];
}

void BiasAddLoop(int64_t rows, int64_t n, const float* __restrict x, const float* __restrict bias,
                 float* __restrict y) {
  for (int64_t row = 0; row < rows; ++row) AddLoop(n, x + row * n, bias, y + row * n);
}

void ReluLoop(int64_t count, const float* __restrict x, float* __restrict y) {
  for (int64_t i = 0; i < count; ++i) y[i] = x[i] <= 0 ? 0.0f : x[i];
}

void ReluGradLoop(int64_t count, const float* __restrict y, const float* __restrict dy,
                  float* __restrict dx) {
  for (int64_t i = 0; i < count; ++i) dx[i] = y[i] > 0 ? dy[i] : 0.0f;
}

#include "runtime/kernels/cpu/simd/loops_body_piecewise.inc"

void TanhLoop(int64_t count, const float* __restrict x, float* __restrict y) {
  for (int64_t i = 0; i < count; ++i) y[i] = Tanh(x[i]);
}

void TanhGradLoop(int64_t count, const float* __restrict y, const float* __restrict dy,
                  float* __restrict dx) {
  for (int64_t i = 0; i < count; ++i) dx[i] = dy[i] * (1.0f - y[i] * y[i]);
}

void SigmoidLoop(int64_t count, const float* __restrict x, float* __restrict y) {
  for (int64_t i = 0; i < count; ++i) y[i] = Sigmoid(x[i]);
}

void SigmoidGradLoop(int64_t count, const float* __restrict y, const float* __restrict dy,
                     float* __restrict dx) {
  for (int64_t i = 0; i < count; ++i) dx[i] = dy[i] * (y[i] * (1.0f - y[i]));
}

void SiluLoop(int64_t count, const float* __restrict x, float* __restrict y) {
  for (int64_t i = 0; i < count; ++i) y[i] = x[i] * Sigmoid(x[i]);
}

void SiluGradLoop(int64_t count, const float* __restrict x, const float* __restrict dy,
                  float* __restrict dx) {
  for (int64_t i = 0; i < count; ++i) {
    const float s = Sigmoid(x[i]);
    dx[i] = dy[i] * (s * (1.0f + x[i] * (1.0f - s)));
  }
}

void ExpMinusLoop(int64_t count, float minus, const float* __restrict x, float* __restrict y) {
  for (int64_t i = 0; i < count; ++i) y[i] = Exp(x[i] - minus);
}

// A tile of kRows rows and two vectors of columns stays in registers while `inner` runs.
template <int kRows, int kVectors>
LEPTON_INLINE void MultiplyTile(int64_t inner, const float* a, int64_t stride_a, const float* b,
                                int64_t stride_b, float* c, int64_t stride_c) {
  Lanes sums[kRows][kVectors];
  for (int i = 0; i < kRows; ++i) {
    for (int v = 0; v < kVectors; ++v) sums[i][v] = Load(c + i * stride_c + v * kLanes);
  }
  for (int64_t k = 0; k < inner; ++k) {
    Lanes right[kVectors];
    for (int v = 0; v < kVectors; ++v) right[v] = Load(b + k * stride_b + v * kLanes);
    for (int i = 0; i < kRows; ++i) {
      const float left = a[i * stride_a + k];
      for (int v = 0; v < kVectors; ++v) sums[i][v] += left * right[v];
    }
  }
  for (int i = 0; i < kRows; ++i) {
    for (int v = 0; v < kVectors; ++v) {
      memcpy(c + i * stride_c + v * kLanes, &sums[i][v], sizeof(Lanes));
    }
  }
}

template <int kRows>
LEPTON_INLINE void MultiplyRows(int64_t columns, int64_t inner, const float* a, int64_t stride_a,
                                const float* b, int64_t stride_b, float* c, int64_t stride_c) {
  int64_t column = 0;
  for (; column + 2 * kLanes <= columns; column += 2 * kLanes) {
    MultiplyTile<kRows, 2>(inner, a, stride_a, b + column, stride_b, c + column, stride_c);
  }
  if (column < columns) {
    MultiplyTile<kRows, 1>(inner, a, stride_a, b + column, stride_b, c + column, stride_c);
  }
}

void MultiplyBlockLoop(int64_t rows, int64_t columns, int64_t inner, const float* __restrict a,
                       int64_t stride_a, const float* __restrict b, int64_t stride_b,
                       float* __restrict c, int64_t stride_c) {
  int64_t row = 0;
  for (; row + 4 <= rows; row += 4) {
    MultiplyRows<4>(columns, inner, a + row * stride_a, stride_a, b, stride_b, c + row * stride_c,
                    stride_c);
  }
  for (; row < rows; ++row) {
    MultiplyRows<1>(columns, inner, a + row * stride_a, stride_a, b, stride_b, c + row * stride_c,
                    stride_c);
  }
}

#include "runtime/kernels/cpu/simd/loops_body_rounding.inc"

void ToF32Loop(int64_t count, const uint16_t* __restrict x, float* __restrict y) {
  for (int64_t i = 0; i < count; ++i) y[i] = FromBits(static_cast<uint32_t>(x[i]) << 16);
}

// Rows of 32, as blocks of products have, without a loop each.
template <typename From, typename To, typename Convert>
inline void ConvertRows(int64_t rows, int64_t columns, const From* __restrict x, int64_t x_pitch,
                        To* __restrict y, int64_t y_pitch, Convert convert) {
  if (columns == 32) {
    for (int64_t row = 0; row < rows; ++row) {
      for (int i = 0; i < 32; ++i) y[row * y_pitch + i] = convert(x[row * x_pitch + i]);
    }
    return;
  }
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < columns; ++i) y[row * y_pitch + i] = convert(x[row * x_pitch + i]);
  }
}

void CopyRowsLoop(int64_t rows, int64_t columns, const float* x, int64_t x_pitch, float* y,
                  int64_t y_pitch) {
  ConvertRows(rows, columns, x, x_pitch, y, y_pitch, [](float value) { return value; });
}

void ToBf16RowsLoop(int64_t rows, int64_t columns, const float* x, int64_t x_pitch, uint16_t* y,
                    int64_t y_pitch) {
  // Rows of products' blocks and of convolutions' tiles: loops that keep nothing on the stack,
  // whose stores would queue behind those to y.
  if (columns == 2 * kLanes) {
    for (int64_t row = 0; row < rows; ++row) RoundTo32(x + row * x_pitch, y + row * y_pitch);
    return;
  }
  if (columns == kLanes) {
    for (int64_t row = 0; row < rows; ++row) RoundTo16(x + row * x_pitch, y + row * y_pitch);
    return;
  }
  for (int64_t row = 0; row < rows; ++row) {
    RoundTo(columns, x + row * x_pitch, y + row * y_pitch);
  }
}

void ToF32RowsLoop(int64_t rows, int64_t columns, const uint16_t* x, int64_t x_pitch, float* y,
                   int64_t y_pitch) {
  ConvertRows(rows, columns, x, x_pitch, y, y_pitch,
              [](uint16_t value) { return FromBits(static_cast<uint32_t>(value) << 16); });
}

void InterleaveLoop(int64_t count, const uint16_t* __restrict even, const uint16_t* __restrict odd,
                    uint32_t* __restrict to) {
  for (int64_t i = 0; i < count; ++i) to[i] = even[i] | static_cast<uint32_t>(odd[i]) << 16;
}

void AddRowsLoop(int64_t rows, int64_t columns, const float* __restrict a, int64_t a_pitch,
                 const float* __restrict b, int64_t b_pitch, float* __restrict y) {
  if (columns == 32) {
    for (int64_t row = 0; row < rows; ++row) {
      for (int i = 0; i < 32; ++i)
        y[row * a_pitch + i] = a[row * a_pitch + i] + b[row * b_pitch + i];
    }
    return;
  }
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < columns; ++i) {
      y[row * a_pitch + i] = a[row * a_pitch + i] + b[row * b_pitch + i];
    }
  }
}

void ScaleRowsLoop(int64_t rows, int64_t columns, const float* __restrict factors,
                   float* __restrict x, int64_t pitch) {
  for (int64_t row = 0; row < rows; ++row) {
    const float factor = factors[row];
    for (int64_t i = 0; i < columns; ++i) x[row * pitch + i] *= factor;
  }
}

#include "runtime/kernels/cpu/simd/loops_body_rows.inc"

#include "runtime/kernels/cpu/simd/loops_body_activations.inc"

#include "runtime/kernels/cpu/simd/loops_body_attention.inc"

#include "runtime/kernels/cpu/simd/loops_body_random.inc"

#include "runtime/kernels/cpu/simd/loops_body_updates.inc"

#include "runtime/kernels/cpu/simd/loops_body_channels.inc"

#include "runtime/kernels/cpu/simd/loops_body_int8.inc"

#include "runtime/kernels/cpu/simd/loops_body_winograd.inc"

#include "runtime/kernels/cpu/simd/transpose_body.inc"

#include "runtime/kernels/cpu/simd/loops_body_winograd_bf16.inc"

constexpr TurnedTileLoops MakeTurnedTileLoops() {
  return {TilesToBlocksLoop, TilesToPanelLoop<false>, TilesToPanelLoop<true>, TilesToPixelsLoop,
          PixelsToBf16Loop,  ChannelsOfTapsLoop,      WeightsToPanelLoop};
}

constexpr Loops MakeLoops(const char* name) {
  return {name,
          AddLoop,
          MulLoop,
          SubLoop,
          DivLoop,
          ScaleLoop,
          BiasAddLoop,
          ReluLoop,
          ReluGradLoop,
          GeluLoop<kGeluTail>,
          GeluGradLoop<kGeluTailSlope>,
          GeluLoop<kGeluTanhTail>,
          GeluGradLoop<kGeluTanhTailSlope>,
          TanhLoop,
          TanhGradLoop,
          SigmoidLoop,
          SigmoidGradLoop,
          SiluLoop,
          SiluGradLoop,
          ExpMinusLoop,
          MultiplyBlockLoop,
          ToBf16Loop,
          ToF32Loop,
          RoundBf16Loop,
          CopyRowsLoop,
          ToBf16RowsLoop,
          ToF32RowsLoop,
          InterleaveLoop,
          AddRowsLoop,
          ScaleRowsLoop,
          GeluRowsLoop<kGeluTail>,
          GeluGradRowsLoop<kGeluTailSlope>,
          GeluRowsLoop<kGeluTanhTail>,
          GeluGradRowsLoop<kGeluTanhTailSlope>,
          DropoutLoop,
          UniformLoop,
          NormalLoop,
          ColumnSumLoop,
          RowSumLoop,
          LayerNormLoop,
          LayerNormGradLoop,
          RmsNormLoop,
          RmsNormGradLoop,
          DotRowsLoop<float>,
          DotRowsLoop<uint16_t>,
          AccumulateLoop,
          SoftmaxLoop,
          LogSoftmaxLoop,
          SoftmaxGradLoop,
          LogSoftmaxGradLoop,
          CrossEntropyLoop,
          CrossEntropyGradLoop,
          ScoreTopsLoop,
          ScoreExpLoop,
          ScaleColumnsLoop,
          ScoreRowTopLoop,
          ScoreRowExpLoop,
          SlopesLoop,
          SlopesBf16Loop,
          SgdLoop,
          AdamLoop,
          SumOfSquaresLoop,
          MakeChannelLoops<float>(),
          MakeChannelLoops<uint16_t>(),
          LargestLoop,
          QuantizeFoursLoop,
          QuantizeRowLoop,
          FromInt32RowsLoop,
          TransformSpanLoop<false>,
          TransformSpanLoop<true>,
          MakeTurnedTileLoops(),
          WinogradWeightsLoop,
          WinogradOutLoop,
          WinogradTapsLoop};
}

}  // namespace
}  // namespace lepton::kernels::simd
