// Products of 8-bit integers where there are no tiles, and their packing, which but for AVX2 is
// that of tiles: steps of 64 of `inner`; a block is [inner / 64][2][16 rows][64], a panel
// [inner / 64][2][16 fours][16 columns][4]. Sums are exact, so every order gives the same.
#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "runtime/kernels/cpu/gemm/micro.h"

namespace lepton::kernels::gemm {
namespace {

constexpr int64_t kInt8Step = 64;
constexpr int64_t kInt8Rows = 32;  // of a block
constexpr int64_t kHalfRows = 16;  // of a tile
constexpr int64_t kFour = 4;
constexpr int64_t kTileBytes = 1024;

// Bytes of row (left side) or column (right side) `row`; they lie side by side along `inner`.
const int8_t* Int8Row(const Part& part, int64_t stride, int64_t row) {
  return static_cast<const int8_t*>(part.data) + (part.first + row) * stride;
}

void PackInt8Blocks(const Part& part, void* blocks) {
  auto* to = static_cast<int8_t*>(blocks);
  const int64_t padded_rows = (part.count + kInt8Rows - 1) / kInt8Rows * kInt8Rows;
  for (int64_t row = 0; row < padded_rows; ++row) {
    int8_t* block = to + row / kInt8Rows * kInt8Rows * part.padded;
    for (int64_t k = 0; k < part.padded; k += kInt8Step) {
      int8_t* line = block + k / kInt8Step * 2 * kTileBytes + row % kInt8Rows * kInt8Step;
      const int64_t there =
          row < part.count ? std::clamp<int64_t>(part.inner - k, 0, kInt8Step) : 0;
      if (there > 0) std::memcpy(line, Int8Row(part, part.source.row_stride, row) + k, there);
      std::memset(line + there, 0, kInt8Step - there);
    }
  }
}

void PackInt8Panels(const Part& part, void* panels) {
  auto* to = static_cast<int8_t*>(panels);
  const int64_t columns = (part.count + kPanelColumns - 1) / kPanelColumns * kPanelColumns;
  for (int64_t column = 0; column < columns; ++column) {
    int8_t* panel = to + column / kPanelColumns * kPanelColumns * part.padded;
    const int64_t in_panel = column % kPanelColumns;
    int8_t* tiles = panel + in_panel / kHalfRows * kTileBytes + in_panel % kHalfRows * kFour;
    const int8_t* from =
        column < part.count ? Int8Row(part, part.source.column_stride, column) : nullptr;
    for (int64_t k = 0; k < part.padded; k += kFour) {
      int8_t* four = tiles + k / kInt8Step * 2 * kTileBytes + k % kInt8Step / kFour * kInt8Step;
      const int64_t there = from == nullptr ? 0 : std::clamp<int64_t>(part.inner - k, 0, kFour);
      for (int64_t i = 0; i < kFour; ++i) four[i] = i < there ? from[k + i] : int8_t{0};
    }
  }
}

// c as integers: the memory is the caller's, typed by what is stored last.
void AddToBlock(const int32_t* sums, int64_t count, float* c, bool add) {
  for (int64_t i = 0; i < count; ++i) {
    int32_t before = 0;
    if (add) std::memcpy(&before, c + i, sizeof(before));
    const int32_t after = before + sums[i];
    std::memcpy(c + i, &after, sizeof(after));
  }
}

void MultiplyInt8(int64_t rows, int64_t inner, const void* block, const void* panel, float* c,
                  bool add) {
  const auto* left = static_cast<const int8_t*>(block);
  const auto* right = static_cast<const int8_t*>(panel);
  for (int64_t row = 0; row < rows; ++row) {
    int32_t sums[kPanelColumns] = {};
    for (int64_t k = 0; k < inner; k += kFour) {
      const int64_t step = k / kInt8Step * 2 * kTileBytes;
      const int8_t* a = left + step + row * kInt8Step + k % kInt8Step;
      for (int64_t column = 0; column < kPanelColumns; ++column) {
        const int8_t* b = right + step + column / kHalfRows * kTileBytes +
                          k % kInt8Step / kFour * kInt8Step + column % kHalfRows * kFour;
        sums[column] += a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3];
      }
    }
    AddToBlock(sums, kPanelColumns, c + row * kPanelColumns, add);
  }
}

#define LEPTON_VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni")))

// vpdpbusd takes its left side without sign: 128 is added to it as it is packed, and 128 times the
// right side, the excess, taken away from the sums. Rows that a last block is short of are not
// written, since MultiplyVnni does not read them.
LEPTON_VNNI void PackFlippedBlocks(const Part& part, void* blocks) {
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(0x80));
  auto* to = static_cast<int8_t*>(blocks);
  for (int64_t row = 0; row < part.count; ++row) {
    int8_t* line = to + row / kInt8Rows * kInt8Rows * part.padded + row % kInt8Rows * kInt8Step;
    const int8_t* from = Int8Row(part, part.source.row_stride, row);
    for (int64_t k = 0; k < part.padded; k += kInt8Step, line += 2 * kTileBytes) {
      const int64_t there = std::clamp<int64_t>(part.inner - k, 0, kInt8Step);
      const __mmask64 mask = there == 0 ? 0 : ~__mmask64{0} >> (kInt8Step - there);
      const __m512i bytes = _mm512_maskz_loadu_epi8(mask, from + (there == 0 ? 0 : k));
      _mm512_storeu_si512(line, _mm512_xor_si512(bytes, flip));
    }
  }
}

// What 128 in each number of a row makes of a panel's columns.
struct Excess {
  __m512i of[2];
};

template <int kRows, bool kFindsExcess>
LEPTON_VNNI inline void MultiplyVnniRows(int64_t steps, const int8_t* left, const int8_t* right,
                                         float* c, bool add, Excess& excess) {
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(0x80));
  __m512i sums[kRows][2], found[2];
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    found[half] = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int row = 0; row < kRows; ++row) sums[row][half] = _mm512_setzero_si512();
  }
  for (int64_t step = 0; step < steps; ++step) {
    for (int64_t four = 0; four < kHalfRows; ++four) {
      __m512i b[2];
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        b[half] = _mm512_loadu_si512(right + half * kTileBytes + four * kInt8Step);
        if constexpr (kFindsExcess) {
          found[half] = _mm512_dpbusd_epi32(found[half], flip, b[half]);
        }
      }
#pragma GCC unroll 8
      for (int row = 0; row < kRows; ++row) {
        int32_t word;
        std::memcpy(&word, left + row * kInt8Step + four * kFour, sizeof(word));
        const __m512i a = _mm512_set1_epi32(word);
#pragma GCC unroll 2
        for (int half = 0; half < 2; ++half) {
          sums[row][half] = _mm512_dpbusd_epi32(sums[row][half], a, b[half]);
        }
      }
    }
    left += 2 * kTileBytes;
    right += 2 * kTileBytes;
  }
#pragma GCC unroll 2
  for (int half = 0; half < 2; ++half) {
    if constexpr (kFindsExcess) excess.of[half] = found[half];
#pragma GCC unroll 8
    for (int row = 0; row < kRows; ++row) {
      float* const to = c + row * kPanelColumns + half * kHalfRows;
      __m512i sum = _mm512_sub_epi32(sums[row][half], excess.of[half]);
      if (add) sum = _mm512_add_epi32(sum, _mm512_loadu_si512(to));
      _mm512_storeu_si512(to, sum);
    }
  }
}

// The rows from `row` on, kRows at a time.
template <int kRows>
LEPTON_VNNI void MultiplyVnniFrom(int64_t& row, int64_t rows, int64_t steps, const int8_t* left,
                                  const int8_t* right, float* c, bool add, Excess& excess) {
  for (; row + kRows <= rows; row += kRows) {
    const int8_t* const block = left + row * kInt8Step;
    float* const to = c + row * kPanelColumns;
    if (row == 0) {
      MultiplyVnniRows<kRows, true>(steps, block, right, to, add, excess);
    } else {
      MultiplyVnniRows<kRows, false>(steps, block, right, to, add, excess);
    }
  }
}

LEPTON_VNNI void MultiplyVnni(int64_t rows, int64_t inner, const void* block, const void* panel,
                              float* c, bool add) {
  const auto* left = static_cast<const int8_t*>(block);
  const auto* right = static_cast<const int8_t*>(panel);
  const int64_t steps = inner / kInt8Step;
  Excess excess;
  int64_t row = 0;
  MultiplyVnniFrom<8>(row, rows, steps, left, right, c, add, excess);
  MultiplyVnniFrom<4>(row, rows, steps, left, right, c, add, excess);
  MultiplyVnniFrom<2>(row, rows, steps, left, right, c, add, excess);
  MultiplyVnniFrom<1>(row, rows, steps, left, right, c, add, excess);
}

// ---- AVX2: both sides widened to 16 bits as they are packed, a block [inner / 2][32 rows][2], a
// panel [inner / 2][32 columns][2]; vpmaddwd adds two products at a time, exactly.

#define LEPTON_INT8_AVX2 __attribute__((target("avx2")))

constexpr int64_t kPair = 2;
constexpr int64_t kWideVectors = kPanelColumns / 8;  // of a pair's columns

void PackWide(const Part& part, int64_t stride, int64_t width, void* packed) {
  const int64_t padded_rows = (part.count + width - 1) / width * width;
  for (int64_t row = 0; row < padded_rows; ++row) {
    int16_t* to =
        static_cast<int16_t*>(packed) + row / width * width * part.padded + row % width * kPair;
    const int8_t* from = row < part.count ? Int8Row(part, stride, row) : nullptr;
    const int64_t inner = from == nullptr ? 0 : part.inner;
    for (int64_t k = 0; k < part.padded; k += kPair, to += width * kPair) {
      to[0] = k < inner ? from[k] : int8_t{0};
      to[1] = k + 1 < inner ? from[k + 1] : int8_t{0};
    }
  }
}
void PackWideBlocks(const Part& part, void* blocks) {
  PackWide(part, part.source.row_stride, kInt8Rows, blocks);
}
void PackWidePanels(const Part& part, void* panels) {
  PackWide(part, part.source.column_stride, kPanelColumns, panels);
}

template <int kRows>
LEPTON_INT8_AVX2 void MultiplyWideRows(int64_t pairs, const int16_t* left, const int16_t* right,
                                       float* c, bool add) {
  __m256i sums[kRows][kWideVectors];
#pragma GCC unroll 3
  for (int row = 0; row < kRows; ++row) {
#pragma GCC unroll 4
    for (int64_t v = 0; v < kWideVectors; ++v) sums[row][v] = _mm256_setzero_si256();
  }
  for (int64_t pair = 0; pair < pairs; ++pair) {
    const auto* b = reinterpret_cast<const __m256i*>(right + pair * kPanelColumns * kPair);
#pragma GCC unroll 3
    for (int row = 0; row < kRows; ++row) {
      int32_t word;
      std::memcpy(&word, left + (pair * kInt8Rows + row) * kPair, sizeof(word));
      const __m256i a = _mm256_set1_epi32(word);
#pragma GCC unroll 4
      for (int64_t v = 0; v < kWideVectors; ++v) {
        sums[row][v] =
            _mm256_add_epi32(sums[row][v], _mm256_madd_epi16(a, _mm256_loadu_si256(b + v)));
      }
    }
  }
#pragma GCC unroll 3
  for (int row = 0; row < kRows; ++row) {
#pragma GCC unroll 4
    for (int64_t v = 0; v < kWideVectors; ++v) {
      auto* const to = reinterpret_cast<__m256i*>(c + row * kPanelColumns) + v;
      __m256i sum = sums[row][v];
      if (add) sum = _mm256_add_epi32(sum, _mm256_loadu_si256(to));
      _mm256_storeu_si256(to, sum);
    }
  }
}

LEPTON_INT8_AVX2 void MultiplyWide(int64_t rows, int64_t inner, const void* block,
                                   const void* panel, float* c, bool add) {
  const auto* left = static_cast<const int16_t*>(block);
  const auto* right = static_cast<const int16_t*>(panel);
  int64_t row = 0;
  for (; row + 3 <= rows; row += 3) {
    MultiplyWideRows<3>(inner / kPair, left + row * kPair, right, c + row * kPanelColumns, add);
  }
  for (; row < rows; ++row) {
    MultiplyWideRows<1>(inner / kPair, left + row * kPair, right, c + row * kPanelColumns, add);
  }
}

void NoTiles() {}

}  // namespace

const Micro kInt8Vnni = {"avx512_vnni",     kInt8Rows,      kInt8Step,    1024,    1,
                         PackFlippedBlocks, PackInt8Panels, MultiplyVnni, nullptr, nullptr,
                         nullptr,           nullptr,        NoTiles,      NoTiles};
const Micro kInt8Avx2 = {"avx2",         kInt8Rows,      kInt8Step,    1024,    2,
                         PackWideBlocks, PackWidePanels, MultiplyWide, nullptr, nullptr,
                         nullptr,        nullptr,        NoTiles,      NoTiles};
const Micro kInt8Baseline = {"baseline",     kInt8Rows,      kInt8Step,    1024,    1,
                             PackInt8Blocks, PackInt8Panels, MultiplyInt8, nullptr, nullptr,
                             nullptr,        nullptr,        NoTiles,      NoTiles};

}  // namespace lepton::kernels::gemm
