// bf16 products with VDPBF16PS (Intel SDM, vol. 2; AMD64 APM, vol. 4), in the order of
// Bf16Sums::kPairs. Packing is that of AVX-512, which every CPU with AVX512_BF16 has.
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
    [](const Part& part, void* panels) { kBf16Avx512.pack_panels(part, panels); },
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
