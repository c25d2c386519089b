// Tiles of attention on plain f32 arithmetic, for f32 and as a fall-back: a block holds a few rows
// (queries; for the gradients of keys and values, keys), walks over tiles of 32 of the others, and
// each lane takes one of these. Device code only.
#pragma once

#include "runtime/kernels/cuda/device/attention.h"
#include "runtime/kernels/cuda/device/code.cuh"

namespace lepton::kernels::cuda {

constexpr int kAttentionWarps = 4;
constexpr int kAttentionThreads = kAttentionWarps * kWarp;
constexpr int kTile = kWarp;  // of the rows that are walked over

// kColumns: columns of a head that each lane takes, 32 apart.
template <int kColumns>
struct AttentionTile {
  static constexpr int kRows = kColumns > 4 ? 2 : 4;  // of a warp
  static constexpr int kBlockRows = kRows * kAttentionWarps;
  static constexpr int kWidth = kColumns * kWarp;  // a head, filled up with zeros
  static constexpr int kPitch = kWidth + 1;        // lanes that read a column meet no bank twice
};

// What one head of one image sees.
struct AttentionHead {
  int64_t image, head, kv_head;
};

// A block of rows of one head of one image; blocks of a head, and heads of an image, side by side.
inline Grid AttentionGrid(int64_t rows, int64_t per_block, int64_t heads, int64_t batch) {
  return {Blocks(rows, per_block) * heads * batch};
}
struct AttentionBlock {
  int64_t first, head, image;
};
__device__ inline AttentionBlock BlockOf(int64_t rows, int64_t per_block, int64_t heads) {
  const int64_t blocks = Blocks(rows, per_block), index = blockIdx.x;
  return {index % blocks * per_block, index / blocks % heads, index / blocks / heads};
}
__device__ inline AttentionHead QueryHead(const AttentionArguments& a,
                                          const AttentionBlock& block) {
  return {block.image, block.head, block.head / (a.heads / a.kv_heads)};
}

__device__ inline int64_t EndKey(const AttentionArguments& a, int64_t query) {
  return a.causal ? query + a.keys - a.queries + 1 : a.keys;
}
__device__ inline int64_t FirstKey(const AttentionArguments& a, int64_t query) {
  if (a.window <= 0) return 0;
  const int64_t first = EndKey(a, query) - a.window;
  return first > 0 ? first : 0;
}
__device__ inline bool Sees(const AttentionArguments& a, int64_t query, int64_t key) {
  return query < a.queries && key >= FirstKey(a, query) && key < EndKey(a, query);
}
__device__ inline int64_t QueryPlace(const AttentionArguments& a, const AttentionHead& h,
                                     int64_t query) {
  return (h.image * a.queries + query) * a.q_pitch + h.head * a.size;
}
__device__ inline int64_t KeyPlace(const AttentionArguments& a, const AttentionHead& h,
                                   int64_t key) {
  return (h.image * a.keys + key) * a.kv_pitch + a.k_start + h.kv_head * a.size;
}
__device__ inline int64_t ValuePlace(const AttentionArguments& a, const AttentionHead& h,
                                     int64_t key) {
  return (h.image * a.keys + key) * a.kv_pitch + a.v_start + h.kv_head * a.size;
}
__device__ inline int64_t OutputPlace(const AttentionArguments& a, const AttentionHead& h,
                                      int64_t query) {
  return (h.image * a.queries + query) * a.y_pitch + h.head * a.size;
}
// Of log_sum and dot.
__device__ inline int64_t RowPlace(const AttentionArguments& a, const AttentionHead& h,
                                   int64_t query) {
  return (h.image * a.heads + h.head) * a.queries + query;
}

// `rows` rows of a head, `pitch` elements apart from `place` on, into shared memory; those from
// `there` on, and columns beyond the head, are zeros.
__device__ inline void LoadRows(const Floats& data, int64_t place, int64_t row_pitch, int64_t there,
                                int rows, int64_t size, int width, int pitch, float* to) {
  for (int i = threadIdx.x; i < rows * width; i += kAttentionThreads) {
    const int row = i / width, column = i % width;
    const bool inside = row < there && column < size;
    to[row * pitch + column] = inside ? data[place + row * row_pitch + column] : 0.0f;
  }
}

// sums[r] = row r of the warp times the lane's row of the tile.
template <int kRows>
__device__ inline void TileProducts(const float* rows, int width, const float* tile, int pitch,
                                    int64_t size, float (&sums)[kRows]) {
  const int lane = threadIdx.x % kWarp;
  for (int r = 0; r < kRows; ++r) sums[r] = 0;
  for (int c = 0; c < size; ++c) {
    const float other = tile[lane * pitch + c];
#pragma unroll
    for (int r = 0; r < kRows; ++r) sums[r] += rows[r * width + c] * other;
  }
}

// sums[r][c] += the sum over the tile of weights[r][j] * tile[j][column c of the lane].
template <int kRows, int kColumns>
__device__ inline void AddWeighted(const float* weights, const float* tile, int pitch,
                                   float (&sums)[kRows][kColumns]) {
  const int lane = threadIdx.x % kWarp;
  for (int j = 0; j < kTile; ++j) {
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const float value = tile[j * pitch + lane + c * kWarp];
#pragma unroll
      for (int r = 0; r < kRows; ++r) sums[r][c] += weights[r * kTile + j] * value;
    }
  }
}

template <int kRows, int kColumns>
__device__ inline void StoreRow(const float (&sums)[kRows][kColumns], int row, float factor,
                                int64_t place, int64_t size, const MutableFloats& to) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    if (lane + c * kWarp < size) to.Set(place + lane + c * kWarp, sums[row][c] * factor);
  }
}

}  // namespace lepton::kernels::cuda
