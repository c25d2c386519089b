// Attention without the score matrix (Dao et al. 2022), forward and backward.
#pragma once

#include <cstdint>

#include "runtime/kernels/cuda/stream.h"

namespace lepton::kernels::cuda {

// As kernels/cpu/attention/attention_shape.h: heads are columns of rows; in a packed node queries,
// keys and values are columns of the same rows. Offsets and pitches are elements.
struct AttentionArguments {
  int64_t batch = 0, heads = 0, kv_heads = 0, queries = 0, keys = 0, size = 0;
  int64_t q_pitch = 0, kv_pitch = 0, y_pitch = 0;
  int64_t k_start = 0, v_start = 0;
  float scale = 0;
  bool causal = false;
  int64_t window = 0;
  bool bf16 = false;  // of q, k, v, y, dy and of their gradients

  const void* q = nullptr;
  const void* k = nullptr;
  const void* v = nullptr;
  const float* bias = nullptr;  // [batch, keys] or null
  void* y = nullptr;            // read by the gradient
  float* log_sum = nullptr;     // [batch, heads, queries], read by the gradient

  // The gradient only.
  const void* dy = nullptr;
  void* dq = nullptr;
  void* dk = nullptr;
  void* dv = nullptr;
  float* dot = nullptr;  // workspace [batch, heads, queries]: dy y of each row
};

// Heads of up to this many elements.
inline constexpr int64_t kAttentionSize = 256;

void RunAttention(const AttentionArguments& arguments, Stream stream);
// The gradient's first part: dot.
void RunAttentionDots(const AttentionArguments& arguments, Stream stream);
void RunAttentionGrad(const AttentionArguments& arguments, Stream stream);

// The same on tensor cores, for what fits; memory is not looked at. f32 sums, as above.
bool FitsTensorCores(const AttentionArguments& arguments);
void RunTensorAttention(const AttentionArguments& arguments, Stream stream);
void RunTensorAttentionGrad(const AttentionArguments& arguments, Stream stream);

}  // namespace lepton::kernels::cuda
