// Attention without the score matrix (Milakov and Gimelshein 2018, "Online normalizer calculation
// for softmax"; Dao 2023, "FlashAttention-2"), on the blocks and panels of gemm/micro.h.
//
// Forward, per (image, head): keys and values are packed once; for each block of queries, tiles of
// kTile keys: scores, their running maximum and sum, probabilities times values.
// Backward, per (image, key head), with scores turned (keys are rows), so that the probabilities
// come out as the left sides of the products for dK and dV: for each tile of queries and of keys
//   s^T = K Q^T,  p = e^(s - log_sum),  dp^T = V dY^T,  ds = scale p (dp - dY.Y)
//   dV += p^T dY,  dK += ds^T Q,  dQ += ds K.
// Threads: the functions spread over ThreadPool::Compute(); a head is one thread's.
#pragma once

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels::attention {

inline constexpr int64_t kTile = 256;  // keys, and in the backward pass queries, at a time

void Forward(const graph::KernelContext& context);
void Backward(const graph::KernelContext& context);
// The same of packed_attention: heads are read and written where they lie in the packed rows.
void PackedForward(const graph::KernelContext& context);
void PackedBackward(const graph::KernelContext& context);

}  // namespace lepton::kernels::attention
