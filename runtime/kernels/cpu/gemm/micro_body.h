// Packing and multiplication for f32, and for bf16 where there are no instructions for it. Compiled
// by micro_avx512.cc, micro_avx2.cc and micro_baseline.cc with different flags; in an unnamed
// namespace, without the standard library's inline functions, for the reason that simd/loops_body.h
// gives. Not a header for anyone else.
#include <string.h>

#include "runtime/kernels/cpu/gemm/micro.h"

namespace lepton::kernels::gemm {
namespace {

#define LEPTON_INLINE inline __attribute__((always_inline))

typedef float Floats __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef int32_t Picks __attribute__((vector_size(64)));
constexpr int64_t kLanes = 16;
constexpr int64_t kVectors = kPanelColumns / kLanes;

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

// Those of the words of a, then b, that `picks` numbers.
LEPTON_INLINE Words Shuffle(const Words& a, const Words& b, const Picks& picks) {
#if defined(__clang__)
  Words picked;
  for (int64_t i = 0; i < kLanes; ++i)
    picked[i] = picks[i] < kLanes ? a[picks[i]] : b[picks[i] - kLanes];
  return picked;
#else
  return __builtin_shuffle(a, b, picks);
#endif
}

// 16 rows of 16 words: rows become columns.
LEPTON_INLINE void Transpose(Words (&rows)[kLanes]) {
  for (int64_t half = 1; half < kLanes; half *= 2) {
    Picks low, high;
    for (int64_t i = 0; i < kLanes; ++i) {
      const bool upper = (i & half) != 0;
      low[i] = static_cast<int32_t>(upper ? kLanes + i - half : i);
      high[i] = static_cast<int32_t>(upper ? kLanes + i : i + half);
    }
    for (int64_t i = 0; i < kLanes; ++i) {
      if ((i & half) != 0) continue;
      const Words a = rows[i];
      const Words b = rows[i + half];
      rows[i] = Shuffle(a, b, low);
      rows[i + half] = Shuffle(a, b, high);
    }
  }
}

// ---- f32: a block is [inner][12], a panel [inner][32]

constexpr int64_t kF32Rows = 12;

// width <= 16 rows, contiguous along inner, to [inner][pitch] by squares of 16.
LEPTON_INLINE void TurnF32(const Reader& from, int64_t width, int64_t inner, int64_t pitch,
                           int64_t kept, float* to) {
  int64_t k = 0;
  for (; k + kLanes <= inner; k += kLanes) {
    Words rows[kLanes];
    for (int64_t row = 0; row < kLanes; ++row) {
      rows[row] =
          row < width ? LoadAs<Words>(from.data + 4 * (row * from.row_stride + k)) : Words{};
    }
    Transpose(rows);
    for (int64_t i = 0; i < kLanes; ++i) memcpy(to + (k + i) * pitch, &rows[i], 4 * kept);
  }
  for (; k < inner; ++k) {
    for (int64_t row = 0; row < kept; ++row) {
      to[k * pitch + row] = row < width ? from.F32(row, k) : 0.0f;
    }
  }
}

// Blocks of `width` rows, [inner][width] each.
LEPTON_INLINE void PackF32(const Reader& from, const Part& part, int64_t width, float* to) {
  const int64_t blocks = (part.count + width - 1) / width;
  const int64_t block_floats = width * part.padded;
  if (!from.bf16 && from.inner_stride == 1) {
    for (int64_t row = 0; row < blocks * width; row += width) {
      for (int64_t part_row = 0; part_row < width; part_row += kLanes) {
        const int64_t left = part.count - row - part_row;
        const int64_t kept = width - part_row < kLanes ? width - part_row : kLanes;
        Reader rows = from;
        rows.data += 4 * (row + part_row) * from.row_stride;
        TurnF32(rows,
                left < 0      ? 0
                : left < kept ? left
                              : kept,
                part.inner, width, kept, to + row / width * block_floats + part_row);
      }
    }
    return;
  }
  // By k first: neighbouring rows lie side by side in the source.
  const int64_t whole = !from.bf16 && from.row_stride == 1 ? part.count / width : 0;
  for (int64_t k = 0; k < part.inner; ++k) {
    for (int64_t block = 0; block < whole; ++block) {
      memcpy(to + block * block_floats + k * width,
             from.data + 4 * (k * from.inner_stride + block * width), 4 * width);
    }
    for (int64_t row = whole * width; row < blocks * width; ++row) {
      to[row / width * block_floats + k * width + row % width] =
          row < part.count ? from.F32(row, k) : 0.0f;
    }
  }
}

void PackF32Blocks(const Part& part, void* blocks) {
  PackF32(ReadLeft(part), part, kF32Rows, static_cast<float*>(blocks));
}

void PackF32Panels(const Part& part, void* panels) {
  PackF32(ReadRight(part), part, kPanelColumns, static_cast<float*>(panels));
}

template <int kRows>
LEPTON_INLINE void MultiplyF32Rows(int64_t inner, const float* block, const float* panel, float* c,
                                   bool add) {
  Floats sums[kRows][kVectors];
  for (int row = 0; row < kRows; ++row) {
    for (int64_t v = 0; v < kVectors; ++v) {
      sums[row][v] = add ? LoadAs<Floats>(c + row * kPanelColumns + v * kLanes) : Floats{};
    }
  }
  for (int64_t k = 0; k < inner; ++k) {
    Floats right[kVectors];
    for (int64_t v = 0; v < kVectors; ++v) {
      right[v] = LoadAs<Floats>(panel + k * kPanelColumns + v * kLanes);
    }
    for (int row = 0; row < kRows; ++row) {
      const float left = block[k * kF32Rows + row];
      for (int64_t v = 0; v < kVectors; ++v) sums[row][v] += left * right[v];
    }
  }
  for (int row = 0; row < kRows; ++row) {
    for (int64_t v = 0; v < kVectors; ++v) {
      StoreAs(c + row * kPanelColumns + v * kLanes, sums[row][v]);
    }
  }
}

// Takes the rows kRows at a time, then the rest by halves: each row's additions are the same.
template <int kRows>
LEPTON_INLINE void MultiplyF32From(int64_t& row, int64_t rows, int64_t inner, const float* block,
                                   const float* panel, float* c, bool add) {
  for (; row + kRows <= rows; row += kRows) {
    MultiplyF32Rows<kRows>(inner, block + row, panel, c + row * kPanelColumns, add);
  }
}

void MultiplyF32(int64_t rows, int64_t inner, const void* block, const void* panel, float* c,
                 bool add) {
  const auto* left = static_cast<const float*>(block);
  const auto* right = static_cast<const float*>(panel);
  int64_t row = 0;
  MultiplyF32From<LEPTON_GEMM_F32_ROWS>(row, rows, inner, left, right, c, add);
  MultiplyF32From<4>(row, rows, inner, left, right, c, add);
  MultiplyF32From<2>(row, rows, inner, left, right, c, add);
  MultiplyF32From<1>(row, rows, inner, left, right, c, add);
}

// ---- bf16: steps of 32. A block is [inner / 32][2][16 rows][32], a panel
// [inner / 32][2][16 pairs of inner][16 columns][2]: what AMX loads as tiles.

constexpr int64_t kStep = 32;
constexpr int64_t kTile = kLanes * kStep;  // elements
constexpr int64_t kBf16Rows = 32;

// Two rows' elements side by side, for 16 columns.
LEPTON_INLINE Words Interleaved(const Reader& from, int64_t row, int64_t count, int64_t k,
                                int64_t inner) {
  Words pairs;
  for (int64_t i = 0; i < kLanes; ++i) {
    const uint32_t low = i < count && k < inner ? from.Bf16(row + i, k) : 0;
    const uint32_t high = i < count && k + 1 < inner ? from.Bf16(row + i, k + 1) : 0;
    pairs[i] = low | high << 16;
  }
  return pairs;
}

// The fast cases: 16 whole rows, contiguous across rows, and a whole pair of k.
LEPTON_INLINE Words InterleavedWhole(const Reader& from, int64_t row, int64_t k) {
  typedef uint16_t Halves __attribute__((vector_size(32)));
  Words low, high;
  if (from.bf16) {
    const char* at = from.data + 2 * (row + k * from.inner_stride);
    low = __builtin_convertvector(LoadAs<Halves>(at), Words);
    high = __builtin_convertvector(LoadAs<Halves>(at + 2 * from.inner_stride), Words);
  } else {
    const char* at = from.data + 4 * (row + k * from.inner_stride);
    const auto round = [](const Words& word) {
      const Words rounded = (word + 0x7fffu + ((word >> 16) & 1u)) >> 16;
      return (word & 0x7fffffffu) > 0x7f800000u ? ((word >> 16) | 0x40u) : rounded;
    };
    low = round(LoadAs<Words>(at));
    high = round(LoadAs<Words>(at + 4 * from.inner_stride));
  }
  return low | high << 16;
}

// 32 elements of one row along inner as 16 words, from `k` on.
LEPTON_INLINE Words AlongInner(const Reader& from, int64_t row, int64_t k, int64_t inner) {
  if (from.inner_stride == 1 && k + kStep <= inner) {
    const int64_t at = row * from.row_stride + k;
    if (from.bf16) return LoadAs<Words>(from.data + 2 * at);
    uint16_t halves[kStep];
    const auto* values = reinterpret_cast<const float*>(from.data) + at;
    for (int64_t i = 0; i < kStep; ++i) halves[i] = Rounded(values[i]);
    return LoadAs<Words>(halves);
  }
  Words pairs;
  for (int64_t i = 0; i < kLanes; ++i) {
    const uint32_t low = k + 2 * i < inner ? from.Bf16(row, k + 2 * i) : 0;
    const uint32_t high = k + 2 * i + 1 < inner ? from.Bf16(row, k + 2 * i + 1) : 0;
    pairs[i] = low | high << 16;
  }
  return pairs;
}

// The 16 pairs of a step, each for 16 rows: what a panel's tile is, and a block's tile turned.
LEPTON_INLINE void PairsOfStep(const Reader& from, int64_t row, int64_t count, int64_t k,
                               int64_t inner, Words (&pairs)[kLanes]) {
  const bool whole = from.row_stride == 1 && count >= kLanes && k + kStep <= inner;
  for (int64_t i = 0; i < kLanes; ++i) {
    pairs[i] = whole ? InterleavedWhole(from, row, k + 2 * i)
                     : Interleaved(from, row, count, k + 2 * i, inner);
  }
}

LEPTON_INLINE void RowsOfStep(const Reader& from, int64_t row, int64_t count, int64_t k,
                              int64_t inner, Words (&rows)[kLanes]) {
  for (int64_t i = 0; i < kLanes; ++i) {
    rows[i] = i < count ? AlongInner(from, row + i, k, inner) : Words{};
  }
}

// One by one: a copy of the whole array would be a call, by way of the stack.
LEPTON_INLINE void StoreTile(uint16_t* to, const Words (&words)[kLanes]) {
  for (int64_t i = 0; i < kLanes; ++i) StoreAs(to + i * kStep, words[i]);
}

// Tiles of rows (a block's) or of pairs (a panel's), two per 32 rows of the source and step,
// whichever way the source lies: one that is contiguous along inner is read row by row, the other
// step by step.
template <bool kOfPairs>
LEPTON_INLINE void PackTiles(const Reader& from, const Part& part, void* out) {
  auto* to = static_cast<uint16_t*>(out);
  const int64_t steps = part.padded / kStep;
  const int64_t tiles = (part.count + 2 * kLanes - 1) / (2 * kLanes) * 2;
  const auto place = [&](int64_t tile, int64_t step) {
    return to + ((tile / 2 * steps + step) * 2 + tile % 2) * kTile;
  };
  const auto count = [&](int64_t tile) {
    return part.count - tile * kLanes < 0 ? 0 : part.count - tile * kLanes;
  };
  if (from.inner_stride == 1 && kOfPairs) {
    for (int64_t tile = 0; tile < tiles; ++tile) {
      for (int64_t step = 0; step < steps; ++step) {
        Words words[kLanes];
        RowsOfStep(from, tile * kLanes, count(tile), step * kStep, part.inner, words);
        Transpose(words);
        StoreTile(place(tile, step), words);
      }
    }
  } else if (from.inner_stride == 1) {
    for (int64_t row = 0; row < tiles * kLanes; ++row) {
      for (int64_t step = 0; step < steps; ++step) {
        const Words words =
            row < part.count ? AlongInner(from, row, step * kStep, part.inner) : Words{};
        StoreAs(place(row / kLanes, step) + row % kLanes * kStep, words);
      }
    }
  } else {
    for (int64_t step = 0; step < steps; ++step) {
      for (int64_t tile = 0; tile < tiles; ++tile) {
        Words words[kLanes];
        PairsOfStep(from, tile * kLanes, count(tile), step * kStep, part.inner, words);
        if (!kOfPairs) Transpose(words);
        StoreTile(place(tile, step), words);
      }
    }
  }
}

void PackBf16Blocks(const Part& part, void* blocks) {
  PackTiles<false>(ReadLeft(part), part, blocks);
}

void PackBf16Panels(const Part& part, void* panels) {
  PackTiles<true>(ReadRight(part), part, panels);
}

void PackBf16Rows(const Part& part, uint16_t* rows, int64_t pitch) {
  const Reader from = ReadLeft(part);
  for (int64_t row = 0; row < part.count; row += kLanes) {
    const int64_t count = part.count - row < kLanes ? part.count - row : kLanes;
    for (int64_t k = 0; k < part.inner; k += kStep) {
      Words words[kLanes];
      if (from.inner_stride == 1) {
        RowsOfStep(from, row, count, k, part.inner, words);
      } else {
        PairsOfStep(from, row, count, k, part.inner, words);
        Transpose(words);
      }
      uint16_t* to = rows + row * pitch + k;
      if (k + kStep <= part.inner) {
        for (int64_t i = 0; i < count; ++i) StoreAs(to + i * pitch, words[i]);
      } else {
        for (int64_t i = 0; i < count; ++i) {
          memcpy(to + i * pitch, &words[i], 2 * (part.inner - k));
        }
      }
    }
  }
}

void TurnBlock(int64_t rows, int64_t columns, const float* c, float* to, int64_t pitch) {
  for (int64_t row = 0; row < rows; row += kLanes) {
    for (int64_t column = 0; column < columns; column += kLanes) {
      const float* from = c + row * kPanelColumns + column;
      float* turned = to + column * pitch + row;
      if (row + kLanes <= rows && column + kLanes <= columns) {
        Words words[kLanes];
        for (int64_t i = 0; i < kLanes; ++i) words[i] = LoadAs<Words>(from + i * kPanelColumns);
        Transpose(words);
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

LEPTON_INLINE Floats EvenHalf(const Words& pairs) {
  const Words bits = pairs << 16;
  return LoadAs<Floats>(&bits);
}

LEPTON_INLINE Floats OddHalf(const Words& pairs) {
  const Words bits = pairs & 0xffff0000u;
  return LoadAs<Floats>(&bits);
}

template <int kRows>
LEPTON_INLINE void MultiplyBf16Rows(int64_t steps, const uint16_t* block, const uint16_t* panel,
                                    float* c, bool add) {
  for (int64_t step = 0; step < steps; ++step) {
    const uint16_t* left = block + step * 2 * kTile;
    const uint16_t* right = panel + step * kVectors * kTile;
    Floats even[kRows][kVectors] = {};
    Floats odd[kRows][kVectors] = {};
    for (int64_t pair = 0; pair < kLanes; ++pair) {
      Words b[kVectors];
      for (int64_t v = 0; v < kVectors; ++v) {
        b[v] = LoadAs<Words>(right + v * kTile + pair * kStep);
      }
      for (int row = 0; row < kRows; ++row) {
        const Words a = Words{} + LoadAs<uint32_t>(left + row * kStep + 2 * pair);
        for (int64_t v = 0; v < kVectors; ++v) {
          even[row][v] += EvenHalf(a) * EvenHalf(b[v]);
          odd[row][v] += OddHalf(a) * OddHalf(b[v]);
        }
      }
    }
    for (int row = 0; row < kRows; ++row) {
      for (int64_t v = 0; v < kVectors; ++v) {
        float* to = c + row * kPanelColumns + v * kLanes;
        const Floats before = add || step > 0 ? LoadAs<Floats>(to) : Floats{};
        StoreAs(to, before + (even[row][v] + odd[row][v]));
      }
    }
  }
}

// In the order of Bf16Sums::kPairs: one sum, to which each pair's odd product is added, then the
// even one. (Products of bf16 are exact in f32, fused or not.)
template <int kRows>
LEPTON_INLINE void MultiplyPairsRows(int64_t steps, const uint16_t* block, const uint16_t* panel,
                                     float* c, bool add) {
  Floats sums[kRows][kVectors];
  for (int row = 0; row < kRows; ++row) {
    for (int64_t v = 0; v < kVectors; ++v) {
      sums[row][v] = add ? LoadAs<Floats>(c + row * kPanelColumns + v * kLanes) : Floats{};
    }
  }
  for (int64_t step = 0; step < steps; ++step) {
    const uint16_t* left = block + step * 2 * kTile;
    const uint16_t* right = panel + step * kVectors * kTile;
    for (int64_t pair = 0; pair < kLanes; ++pair) {
      Words b[kVectors];
      for (int64_t v = 0; v < kVectors; ++v) {
        b[v] = LoadAs<Words>(right + v * kTile + pair * kStep);
      }
      for (int row = 0; row < kRows; ++row) {
        const Words a = Words{} + LoadAs<uint32_t>(left + row * kStep + 2 * pair);
        for (int64_t v = 0; v < kVectors; ++v) {
          sums[row][v] += OddHalf(a) * OddHalf(b[v]);
          sums[row][v] += EvenHalf(a) * EvenHalf(b[v]);
        }
      }
    }
  }
  for (int row = 0; row < kRows; ++row) {
    for (int64_t v = 0; v < kVectors; ++v) {
      StoreAs(c + row * kPanelColumns + v * kLanes, sums[row][v]);
    }
  }
}

template <int kRows, bool kPairs>
LEPTON_INLINE void MultiplyBf16From(int64_t& row, int64_t rows, int64_t steps,
                                    const uint16_t* block, const uint16_t* panel, float* c,
                                    bool add) {
  while (row + kRows <= rows && row % kLanes + kRows <= kLanes) {
    const uint16_t* left = block + row / kLanes * kTile + row % kLanes * kStep;
    float* to = c + row * kPanelColumns;
    if (kPairs) {
      MultiplyPairsRows<kRows>(steps, left, panel, to, add);
    } else {
      MultiplyBf16Rows<kRows>(steps, left, panel, to, add);
    }
    row += kRows;
  }
}

template <bool kPairs>
void MultiplyBf16(int64_t rows, int64_t inner, const void* block, const void* panel, float* c,
                  bool add) {
  constexpr int kRows = kPairs ? 8 : 4;  // as many sums as there are registers for
  const auto* left = static_cast<const uint16_t*>(block);
  const auto* right = static_cast<const uint16_t*>(panel);
  const int64_t steps = inner / kStep;
  for (int64_t row = 0; row < rows;) {
    MultiplyBf16From<kRows, kPairs>(row, rows, steps, left, right, c, add);
    MultiplyBf16From<1, kPairs>(row, rows, steps, left, right, c, add);
  }
}

void Nothing() {}

#define LEPTON_GEMM_F32(name)                                                               \
  {                                                                                         \
    name, kF32Rows, 1, 256, 4, PackF32Blocks, PackF32Panels, MultiplyF32, nullptr, nullptr, \
        TurnBlock, nullptr, Nothing, Nothing                                                \
  }
#define LEPTON_GEMM_BF16(name, pairs)                                                             \
  {                                                                                               \
    name, kBf16Rows, kStep, 512, 2, PackBf16Blocks, PackBf16Panels, MultiplyBf16<pairs>, nullptr, \
        PackBf16Rows, TurnBlock, nullptr, Nothing, Nothing                                        \
  }

}  // namespace
}  // namespace lepton::kernels::gemm
