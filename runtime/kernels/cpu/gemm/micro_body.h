// Packing and multiplication for f32 (micro_body_f32.inc), and for bf16 where there are no
// instructions for it (micro_body_bf16.inc): what they share, and both. Compiled
// by micro_avx512.cc, micro_avx2.cc and micro_baseline.cc with different flags; in an unnamed
// namespace, without the standard library's inline functions, for the reason that simd/loops_body.h
// gives. Not a header for anyone else.
#include <string.h>

#include "runtime/kernels/cpu/gemm/micro.h"

namespace lepton::kernels::gemm {
namespace {

#define LEPTON_INLINE inline __attribute__((always_inline))

// Sixteen words, for what moves them: where registers are smaller they are memory, which sums must
// not be. So sums are of vectors that are one register each.
#if defined(__AVX512F__)
#define LEPTON_REGISTER_BYTES 64
#elif defined(__AVX2__)
#define LEPTON_REGISTER_BYTES 32
#else
#define LEPTON_REGISTER_BYTES 16
#endif
typedef uint32_t Words __attribute__((vector_size(64)));
constexpr int64_t kLanes = 16;
typedef float Floats __attribute__((vector_size(LEPTON_REGISTER_BYTES)));
typedef uint32_t FloatBits __attribute__((vector_size(LEPTON_REGISTER_BYTES)));
constexpr int64_t kFloats = LEPTON_REGISTER_BYTES / 4;
// Columns of a panel are summed two registers at a time: `column` is where these begin.
constexpr int64_t kVectors = 2;
constexpr int64_t kColumns = kVectors * kFloats;
static_assert(kPanelColumns % kColumns == 0);

template <typename T>
LEPTON_INLINE T LoadAs(const void* from) {
  T value;
  memcpy(&value, from, sizeof(value));
  return value;
}

template <typename T>
LEPTON_INLINE void StoreAs(void* to, const T& value) {
  memcpy(to, &value, sizeof(value));
}

LEPTON_INLINE uint16_t Rounded(float value) {
  const uint32_t word = LoadAs<uint32_t>(&value);
  const uint32_t rounded = (word + 0x7fffu + ((word >> 16) & 1u)) >> 16;
  const uint32_t quiet = (word >> 16) | 0x40u;
  return static_cast<uint16_t>((word & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

// ---- Sources, read in the direction in which they are contiguous

// Element (row, k) of a part; rows are columns of the right side when it is packed.
struct Reader {
  const char* data;
  bool bf16;
  int64_t row_stride, inner_stride;  // elements

  LEPTON_INLINE float F32(int64_t row, int64_t k) const {
    const int64_t at = row * row_stride + k * inner_stride;
    if (!bf16) return LoadAs<float>(data + 4 * at);
    const uint32_t word = static_cast<uint32_t>(LoadAs<uint16_t>(data + 2 * at)) << 16;
    return LoadAs<float>(&word);
  }
  LEPTON_INLINE uint16_t Bf16(int64_t row, int64_t k) const {
    const int64_t at = row * row_stride + k * inner_stride;
    return bf16 ? LoadAs<uint16_t>(data + 2 * at) : Rounded(LoadAs<float>(data + 4 * at));
  }
};

LEPTON_INLINE Reader ReadLeft(const Part& part) {
  const bool bf16 = part.source.dtype == DType::kBF16;
  return {
      static_cast<const char*>(part.data) + part.first * part.source.row_stride * (bf16 ? 2 : 4),
      bf16, part.source.row_stride, part.source.column_stride};
}

LEPTON_INLINE Reader ReadRight(const Part& part) {
  const bool bf16 = part.source.dtype == DType::kBF16;
  return {
      static_cast<const char*>(part.data) + part.first * part.source.column_stride * (bf16 ? 2 : 4),
      bf16, part.source.column_stride, part.source.row_stride};
}

#include "runtime/kernels/cpu/simd/transpose_body.inc"

// A block of C to [columns][rows].
void TurnBlock(int64_t rows, int64_t columns, const float* c, float* to, int64_t pitch) {
  for (int64_t row = 0; row < rows; row += kLanes) {
    for (int64_t column = 0; column < columns; column += kLanes) {
      const float* from = c + row * kPanelColumns + column;
      float* turned = to + column * pitch + row;
      if (row + kLanes <= rows && column + kLanes <= columns) {
        Words words[kLanes];
#pragma GCC unroll 16
        for (int64_t i = 0; i < kLanes; ++i) words[i] = LoadAs<Words>(from + i * kPanelColumns);
        Transpose(words);
#pragma GCC unroll 16
        for (int64_t i = 0; i < kLanes; ++i) StoreAs(turned + i * pitch, words[i]);
        continue;
      }
      for (int64_t j = 0; j < kLanes && column + j < columns; ++j) {
        for (int64_t i = 0; i < kLanes && row + i < rows; ++i) {
          turned[j * pitch + i] = from[i * kPanelColumns + j];
        }
      }
    }
  }
}

#include "runtime/kernels/cpu/gemm/micro_body_bf16.inc"
#include "runtime/kernels/cpu/gemm/micro_body_f32.inc"

void Nothing() {}

#define LEPTON_GEMM_F32(name)                                                               \
  {                                                                                         \
    name, kF32Rows, 1, 256, 4, PackF32Blocks, PackF32Panels, MultiplyF32, MultiplyF32Where, \
        nullptr, TurnBlock, nullptr, Nothing, Nothing                                       \
  }
#define LEPTON_GEMM_BF16(name, pairs)                                                             \
  {                                                                                               \
    name, kBf16Rows, kStep, 512, 2, PackBf16Blocks, PackBf16Panels, MultiplyBf16<pairs>, nullptr, \
        PackBf16Rows, TurnBlock, nullptr, Nothing, Nothing, pairs ? MultiplyPanels : nullptr      \
  }

}  // namespace
}  // namespace lepton::kernels::gemm
