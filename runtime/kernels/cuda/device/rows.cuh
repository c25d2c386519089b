// A block's work on a row. Device code only.
#pragma once

#include "runtime/kernels/cuda/device/code.cuh"

namespace lepton::kernels::cuda {

// Threads for rows of n: four elements each, at most 512, whole warps.
inline int RowThreads(int64_t n) {
  const int64_t warps = Blocks(n, 4 * kWarp);
  return static_cast<int>((warps < 1 ? 1 : warps > 16 ? 16 : warps) * kWarp);
}

// The largest element and the sum of exponentials relative to it.
struct MaxSum {
  float max;
  float sum;
};

__device__ inline MaxSum Join(MaxSum a, MaxSum b) {
  const float max = fmaxf(a.max, b.max);
  // Of no elements: -infinity minus itself is not a number.
  const float share_a = a.max == -INFINITY ? 0.0f : a.sum * expf(a.max - max);
  const float share_b = b.max == -INFINITY ? 0.0f : b.sum * expf(b.max - max);
  // A row of not-a-numbers has no largest element, but its sum must show it.
  return {max, share_a + share_b + (a.sum != a.sum ? a.sum : 0.0f) +
                   (b.sum != b.sum ? b.sum : 0.0f)};
}

__device__ inline MaxSum WarpJoin(MaxSum value) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    const MaxSum other{__shfl_xor_sync(kAllLanes, value.max, distance),
                       __shfl_xor_sync(kAllLanes, value.sum, distance)};
    value = Join(value, other);
  }
  return value;
}

// Of row[0..n) * factor, for all threads of a block; one pass over the row (Milakov and Gimelshein
// 2018).
__device__ inline MaxSum RowMaxSum(const float* row, int64_t n, float factor) {
  __shared__ MaxSum scratch[kWarp];
  MaxSum own{-INFINITY, 0};
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) own = Join(own, {row[i] * factor, 1.0f});
  own = WarpJoin(own);
  const int warps = blockDim.x / kWarp;
  if (warps == 1) return own;
  __syncthreads();
  if (threadIdx.x % kWarp == 0) scratch[threadIdx.x / kWarp] = own;
  __syncthreads();
  const int lane = threadIdx.x % kWarp;
  return WarpJoin(lane < warps ? scratch[lane] : MaxSum{-INFINITY, 0});
}

// The sum of term(i) over a row, for all threads.
template <typename Term>
__device__ inline float RowSum(int64_t n, const Term& term) {
  __shared__ float scratch[kWarp];
  float sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) sum += term(i);
  return BlockSum(sum, scratch);
}

}  // namespace lepton::kernels::cuda
