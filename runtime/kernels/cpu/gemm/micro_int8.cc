// Products of 8-bit integers where there are no tiles, and their packing, which is that of tiles:
// steps of 64 of `inner`; a block is [inner / 64][2][16 rows][64], a panel
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

// vpdpbusd takes its left side without sign: 128 is added to it, and 128 times the right side
// taken away again.
template <int kRows>
LEPTON_VNNI void MultiplyVnniRows(int64_t steps, const int8_t* left, const int8_t* right, float* c,
                                  bool add) {
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(0x80));
  __m512i sums[kRows][2], excess[2];
  for (int half = 0; half < 2; ++half) {
    excess[half] = _mm512_setzero_si512();
    for (int row = 0; row < kRows; ++row) {
      sums[row][half] = add ? _mm512_loadu_si512(c + row * kPanelColumns + half * kHalfRows)
                            : _mm512_setzero_si512();
    }
  }
  for (int64_t step = 0; step < steps; ++step) {
    for (int64_t four = 0; four < kHalfRows; ++four) {
      __m512i b[2];
      for (int half = 0; half < 2; ++half) {
        b[half] = _mm512_loadu_si512(right + half * kTileBytes + four * kInt8Step);
        excess[half] = _mm512_dpbusd_epi32(excess[half], flip, b[half]);
      }
      for (int row = 0; row < kRows; ++row) {
        int32_t word;
        std::memcpy(&word, left + row * kInt8Step + four * kFour, sizeof(word));
        const __m512i a = _mm512_xor_si512(_mm512_set1_epi32(word), flip);
        for (int half = 0; half < 2; ++half) {
          sums[row][half] = _mm512_dpbusd_epi32(sums[row][half], a, b[half]);
        }
      }
    }
    left += 2 * kTileBytes;
    right += 2 * kTileBytes;
  }
  for (int row = 0; row < kRows; ++row) {
    for (int half = 0; half < 2; ++half) {
      _mm512_storeu_si512(c + row * kPanelColumns + half * kHalfRows,
                          _mm512_sub_epi32(sums[row][half], excess[half]));
    }
  }
}

LEPTON_VNNI void MultiplyVnni(int64_t rows, int64_t inner, const void* block, const void* panel,
                              float* c, bool add) {
  const auto* left = static_cast<const int8_t*>(block);
  const auto* right = static_cast<const int8_t*>(panel);
  int64_t row = 0;
  for (; row + 8 <= rows; row += 8) {
    MultiplyVnniRows<8>(inner / kInt8Step, left + row * kInt8Step, right, c + row * kPanelColumns,
                        add);
  }
  for (; row < rows; ++row) {
    MultiplyVnniRows<1>(inner / kInt8Step, left + row * kInt8Step, right, c + row * kPanelColumns,
                        add);
  }
}

void NoTiles() {}

}  // namespace

const Micro kInt8Vnni = {"avx512_vnni",  kInt8Rows,      kInt8Step,    1024,    1,
                         PackInt8Blocks, PackInt8Panels, MultiplyVnni, nullptr, nullptr,
                         nullptr,        nullptr,        NoTiles,      NoTiles};
const Micro kInt8Baseline = {"baseline",     kInt8Rows,      kInt8Step,    1024,    1,
                             PackInt8Blocks, PackInt8Panels, MultiplyInt8, nullptr, nullptr,
                             nullptr,        nullptr,        NoTiles,      NoTiles};

}  // namespace lepton::kernels::gemm
