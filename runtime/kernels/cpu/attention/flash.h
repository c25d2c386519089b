// Attention without the score matrix (Milakov and Gimelshein 2018, "Online normalizer calculation
// for softmax"; Dao 2023, "FlashAttention-2"), on the blocks and panels of gemm/micro.h.
//
// Scores are computed turned: keys are rows, 32 queries are columns. So maxima and sums of a query
// stay in its lane of a vector, and what is made of the scores is a side of the next product almost
// as it lies.
// Forward, per (image, head): for each 32 queries, tiles of up to kTile keys:
//   s^T = K Q^T,  p = e^(s - running maximum),  Y^T += V^T p^T.
// Backward, per (image, key head): for each tile of queries and of keys
//   s^T = K Q^T,  p = e^(s - log_sum),  dp^T = V dY^T,  ds = scale p (dp - dY.Y)
//   dV += p^T dY,  dK += ds^T Q,  dQ^T += K^T ds^T.
// Threads: the functions spread over ThreadPool::Compute(); a head is one thread's.
#pragma once

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels::attention {

inline constexpr int64_t kTile = 256;  // keys, and in the backward pass queries, at a time

void Forward(const graph::KernelContext& context);
void Backward(const graph::KernelContext& context);
// cached_attention (cached.cc).
void CachedForward(const graph::KernelContext& context);
// The same of packed_attention: heads are read and written where they lie in the packed rows.
void PackedForward(const graph::KernelContext& context);
void PackedBackward(const graph::KernelContext& context);

}  // namespace lepton::kernels::attention
