// bf16 products with VDPBF16PS (Intel SDM, vol. 2; AMD64 APM, vol. 4), in the order of
// Bf16Sums::kPairs. Packing is that of AVX-512, which every CPU with AVX512_BF16 has, but for the
// panels that are packed most: there what rounds is an instruction, too.
#include <immintrin.h>
#include <string.h>

#include "runtime/kernels/cpu/gemm/micro.h"

namespace lepton::kernels::gemm {
namespace {

#define LEPTON_INLINE inline __attribute__((always_inline))

template <int kCount>
struct Count {
  static constexpr int value = kCount;
};

constexpr int64_t kBlockRows = 32;
constexpr int64_t kStep = 32;  // of `inner`
constexpr int64_t kPairs = kStep / 2;
constexpr int64_t kTile = kPairs * kStep;       // elements of a panel: 16 columns of a step
constexpr int64_t kBlock = kBlockRows * kStep;  // of a block: a step of its rows
// As many as have their sums in registers, two vectors each, with the latency of VDPBF16PS hidden.
constexpr int kRows = 8;
constexpr int64_t kAhead = 8 * kTile;  // elements of a panel that are fetched before they are used

LEPTON_INLINE __m512 Times(__m512 sum, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

LEPTON_INLINE __m512i Spread(const uint16_t* pair) {
  int value;
  memcpy(&value, pair, sizeof(value));
  return _mm512_set1_epi32(value);
}

// Sums of kCount rows and 2 times 16 columns.
template <int kCount>
struct Sums {
  __m512 low[kCount], high[kCount];

  // One pair of indices: `rows` points at that of the first row, the others' are `pitch` apart.
  LEPTON_INLINE void Add(const uint16_t* rows, int64_t pitch, __m512i b_low, __m512i b_high) {
#pragma GCC unroll 8
    for (int row = 0; row < kCount; ++row) {
      const __m512i a = Spread(rows + row * pitch);
      low[row] = Times(low[row], a, b_low);
      high[row] = Times(high[row], a, b_high);
    }
  }
};

// Rows at `left`, `pitch` elements apart, their pairs kPairPitch; those of the next step `advance`
// elements further.
template <int kCount, int64_t kPairPitch = 2>
LEPTON_INLINE void MultiplyRows(int64_t steps, const uint16_t* left, int64_t pitch, int64_t advance,
                                const uint16_t* panel, float* c, bool add) {
  Sums<kCount> sums;
#pragma GCC unroll 8
  for (int row = 0; row < kCount; ++row) {
    const float* at = c + row * kPanelColumns;
    sums.low[row] = add ? _mm512_loadu_ps(at) : _mm512_setzero_ps();
    sums.high[row] = add ? _mm512_loadu_ps(at + 16) : _mm512_setzero_ps();
  }
  for (int64_t step = 0; step < steps; ++step, left += advance, panel += 2 * kTile) {
#pragma GCC unroll 2
    for (int64_t pair = 0; pair < kPairs; ++pair) {
      const uint16_t* right = panel + pair * kStep;
      if (kCount == 1) {  // waits for memory
        _mm_prefetch(right + kAhead, _MM_HINT_T0);
        _mm_prefetch(right + kTile + kAhead, _MM_HINT_T0);
      }
      sums.Add(left + kPairPitch * pair, pitch, _mm512_loadu_si512(right),
               _mm512_loadu_si512(right + kTile));
    }
  }
#pragma GCC unroll 8
  for (int row = 0; row < kCount; ++row) {
    _mm512_storeu_ps(c + row * kPanelColumns, sums.low[row]);
    _mm512_storeu_ps(c + row * kPanelColumns + 16, sums.high[row]);
  }
}

void Multiply(int64_t rows, int64_t inner, const void* block, const void* panel, float* c,
              bool add) {
  const auto* left = static_cast<const uint16_t*>(block);
  const auto* right = static_cast<const uint16_t*>(panel);
  const int64_t steps = inner / kStep;
  int64_t row = 0;
  const auto take = [&](auto count) {
    constexpr int kCount = decltype(count)::value;
    for (; row + kCount <= rows; row += kCount) {
      MultiplyRows<kCount>(steps, left + row * kStep, kStep, kBlock, right, c + row * kPanelColumns,
                           add);
    }
  };
  take(Count<kRows>());
  take(Count<4>());
  take(Count<1>());
}

void MultiplyWhere(int64_t inner, const void* rows, int64_t pitch, const void* panel, float* c,
                   bool add) {
  for (int64_t row = 0; row < kBlockRows; row += kRows) {
    MultiplyRows<kRows>(inner / kStep, static_cast<const uint16_t*>(rows) + row * pitch, pitch,
                        kStep, static_cast<const uint16_t*>(panel), c + row * kPanelColumns, add);
  }
}

void MultiplyPanels(int64_t inner, const void* left, const void* panel, float* c, bool add) {
  constexpr int64_t kColumns = 16;  // of a tile
  for (int64_t row = 0; row < kBlockRows; row += kRows) {
    MultiplyRows<kRows, kStep>(
        inner / kStep,
        static_cast<const uint16_t*>(left) + row / kColumns * kTile + row % kColumns * 2, 2,
        2 * kTile, static_cast<const uint16_t*>(panel), c + row * kPanelColumns, add);
  }
}

void MultiplyShifted(const ShiftedProduct& p, int tiles) {
  for (int64_t row = 0; row < kBlockRows; row += kRows) {
    Sums<kRows> sums;
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) sums.low[i] = sums.high[i] = _mm512_setzero_ps();
    const auto* left = static_cast<const uint16_t*>(p.blocks) + row * kStep;
    for (int64_t tap = 0; tap < p.taps; ++tap) {
      const uint32_t* first = p.images + p.positions[0] + p.shifts[tap];
      const uint32_t* second = p.images + p.positions[1] + p.shifts[tap];
      for (int64_t step = 0; step < p.steps; ++step, left += kBlock) {
        for (int64_t pair = 0; pair < kPairs; ++pair, first += p.pitch, second += p.pitch) {
          sums.Add(left + 2 * pair, kStep, _mm512_loadu_si512(first), _mm512_loadu_si512(second));
        }
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      _mm512_storeu_ps(p.c[0] + (row + i) * p.c_pitch, sums.low[i]);
      if (tiles == 2) _mm512_storeu_ps(p.c[1] + (row + i) * p.c_pitch, sums.high[i]);
    }
  }
}

// ---- Panels of sources whose columns lie side by side

constexpr int64_t kLanes = 16;

// The first `count` of 32 numbers; the others are 0.
struct Row32 {
  __mmask16 low, high;  // of the numbers that there are
  __mmask32 all;

  explicit Row32(int64_t count)
      : low(static_cast<__mmask16>(count >= kLanes ? 0xffff : (1 << count) - 1)),
        high(static_cast<__mmask16>(count >= 2 * kLanes ? 0xffff
                                    : count <= kLanes   ? 0
                                                        : (1 << (count - kLanes)) - 1)),
        all(static_cast<__mmask32>(low) | static_cast<__mmask32>(high) << kLanes) {}
};

// Number i of `even` beside that of `odd`, for 16 of the 32 from `first` on.
LEPTON_INLINE __m512i Picks(int first) {
  alignas(64) static constexpr uint16_t kPicks[32] = {0,  32, 1,  33, 2,  34, 3,  35, 4,  36, 5,
                                                      37, 6,  38, 7,  39, 8,  40, 9,  41, 10, 42,
                                                      11, 43, 12, 44, 13, 45, 14, 46, 15, 47};
  return _mm512_add_epi16(_mm512_load_si512(kPicks),
                          _mm512_set1_epi16(static_cast<int16_t>(first)));
}

LEPTON_INLINE void StorePair(__m512i even, __m512i odd, uint16_t* to) {
  _mm512_storeu_si512(to, _mm512_permutex2var_epi16(even, Picks(0), odd));
  _mm512_storeu_si512(to + kTile, _mm512_permutex2var_epi16(even, Picks(kLanes), odd));
}

template <bool kBf16>
LEPTON_INLINE __m512i Halves(const Row32& row, const char* data) {
  if constexpr (kBf16) {
    return _mm512_maskz_loadu_epi16(row.all, data);
  } else {
    const auto* numbers = reinterpret_cast<const float*>(data);
    const __m512 low = _mm512_maskz_loadu_ps(row.low, numbers);
    const __m512 high = _mm512_maskz_loadu_ps(row.high, numbers + kLanes);
    return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
  }
}

template <bool kBf16>
void PackAcross(const Part& part, uint16_t* panels) {
  constexpr int64_t kElement = kBf16 ? 2 : 4;
  const int64_t steps = part.padded / kStep, pitch = part.source.row_stride * kElement;
  const char* const data = static_cast<const char*>(part.data) + part.first * kElement;
  for (int64_t step = 0; step < steps; ++step) {
    for (int64_t column = 0; column < part.count; column += kPanelColumns) {
      const int64_t count =
          part.count - column < kPanelColumns ? part.count - column : kPanelColumns;
      const Row32 row(count);
      uint16_t* to = panels + (column / kPanelColumns * steps + step) * 2 * kTile;
      const char* from = data + step * kStep * pitch + column * kElement;
      const int64_t inner = part.inner - step * kStep;
      for (int64_t k = 0; k < kStep; k += 2, from += 2 * pitch, to += kStep) {
        // The same columns of the next step lie too far away for the CPU to foresee.
        _mm_prefetch(from + kStep * pitch, _MM_HINT_T0);
        _mm_prefetch(from + (kStep + 1) * pitch, _MM_HINT_T0);
        const __m512i even = k < inner ? Halves<kBf16>(row, from) : _mm512_setzero_si512();
        const __m512i odd =
            k + 1 < inner ? Halves<kBf16>(row, from + pitch) : _mm512_setzero_si512();
        StorePair(even, odd, to);
      }
    }
  }
}

void PackPanels(const Part& part, void* panels) {
  if (part.source.column_stride != 1) return kBf16Avx512.pack_panels(part, panels);
  if (part.source.dtype == DType::kBF16) {
    PackAcross<true>(part, static_cast<uint16_t*>(panels));
  } else {
    PackAcross<false>(part, static_cast<uint16_t*>(panels));
  }
}

void Nothing() {}

}  // namespace

extern const Micro kPairsAvx512Bf16;
const Micro kPairsAvx512Bf16 = {
    "avx512_bf16",
    kBlockRows,
    kStep,
    512,
    2,
    [](const Part& part, void* blocks) { kBf16Avx512.pack_blocks(part, blocks); },
    PackPanels,
    Multiply,
    MultiplyWhere,
    [](const Part& part, uint16_t* rows, int64_t pitch) {
      kBf16Avx512.pack_rows(part, rows, pitch);
    },
    [](int64_t rows, int64_t columns, const float* c, float* to, int64_t pitch) {
      kBf16Avx512.turn(rows, columns, c, to, pitch);
    },
    MultiplyShifted,
    Nothing,
    Nothing,
    MultiplyPanels};

}  // namespace lepton::kernels::gemm
