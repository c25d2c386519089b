// A warp's products of small bf16 matrices on tensor cores: 16 x 16 times 16 x 8, sums in f32 (PTX
// ISA, mma.m16n8k16). Which element of a matrix lies in which lane's register is part of that
// instruction; the emulation follows the same layout. Device code only.
#pragma once

#include "runtime/kernels/cuda/device/code.cuh"

namespace lepton::kernels::cuda {

// Lane 4 g + t of a warp holds, of the left matrix, rows g and g + 8 at columns 2t, 2t + 1 and those
// plus 8; of the right one, column g at rows 2t, 2t + 1 and those plus 8; of the result, rows g
// (0, 1) and g + 8 (2, 3) at columns 2t, 2t + 1.
__device__ inline int LaneRow() {
  return threadIdx.x % kWarp / 4;
}
__device__ inline int LanePair() {
  return threadIdx.x % 4 * 2;
}

struct LeftFragment {
  uint32_t words[4];
};
struct RightFragment {
  uint32_t words[2];
};

__device__ inline uint32_t PairOf(float low, float high) {
  return RoundToBf16(low).bits | static_cast<uint32_t>(RoundToBf16(high).bits) << 16;
}

// Two neighbours, the first at an even place.
__device__ inline uint32_t PairAt(const Bf16* place) {
  return *reinterpret_cast<const uint32_t*>(place);
}

// Columns [16 step, 16 step + 16) of 16 rows.
__device__ inline LeftFragment LeftRows(const Bf16* rows, int pitch, int step) {
  const Bf16* own = rows + LaneRow() * pitch + step * 16 + LanePair();
  return {{PairAt(own), PairAt(own + 8 * pitch), PairAt(own + 8), PairAt(own + 8 * pitch + 8)}};
}

// The right matrix lies turned: `columns` are its 8 columns, of which rows [16 step, ..) are taken.
__device__ inline RightFragment RightColumns(const Bf16* columns, int pitch, int step) {
  const Bf16* own = columns + LaneRow() * pitch + step * 16 + LanePair();
  return {{PairAt(own), PairAt(own + 8)}};
}

// sums += left * right.
__device__ inline void MultiplyAdd(float (&sums)[4], const LeftFragment& left,
                                   const RightFragment& right) {
#ifdef __CUDACC__
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};\n"
      : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
      : "r"(left.words[0]), "r"(left.words[1]), "r"(left.words[2]), "r"(left.words[3]),
        "r"(right.words[0]), "r"(right.words[1]));
#else
  struct Both {
    LeftFragment left;
    RightFragment right;
  };
  const Both own{left, right};
  emulation::Share(&own, sizeof(own));
  const auto value = [](uint32_t word, int half) {
    return ToFloat(Bf16{static_cast<uint16_t>(half != 0 ? word >> 16 : word)});
  };
  for (int i = 0; i < 4; ++i) {
    const int row = LaneRow() + i / 2 * 8, column = LanePair() + i % 2;
    for (int k = 0; k < 16; ++k) {
      const unsigned pair = k % 8 / 2;
      const auto* of_row = static_cast<const Both*>(emulation::SharedBy(row % 8 * 4 + pair));
      const auto* of_column = static_cast<const Both*>(emulation::SharedBy(column * 4 + pair));
      sums[i] += value(of_row->left.words[row / 8 + k / 8 * 2], k % 2) *
                 value(of_column->right.words[k / 8], k % 2);
    }
  }
#endif
}

// A result rounded, as the left matrix of the next product: columns [16 step, ..) of 8-wide tiles.
template <int kTiles>
__device__ inline LeftFragment LeftOfResult(const float (&tiles)[kTiles][4], int step) {
  const float* first = tiles[2 * step];
  const float* second = tiles[2 * step + 1];
  return {{PairOf(first[0], first[1]), PairOf(first[2], first[3]), PairOf(second[0], second[1]),
           PairOf(second[2], second[3])}};
}

// Over the four lanes that hold a row of a result.
__device__ inline float RowMaxOfQuad(float value) {
  value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, 1));
  return fmaxf(value, __shfl_xor_sync(kAllLanes, value, 2));
}
__device__ inline float RowSumOfQuad(float value) {
  value += __shfl_xor_sync(kAllLanes, value, 1);
  return value + __shfl_xor_sync(kAllLanes, value, 2);
}

}  // namespace lepton::kernels::cuda
