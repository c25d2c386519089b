// attention(q [b, s, heads * d], k and v [b, t, kv_heads * d], optional key bias [b, t]; heads,
// kv_heads (heads), scale, causal, window) -> y [b, s, heads * d], and the logarithm of each row's
// sum of exponentials [b, heads, s], for the gradient op only. Per head y = softmax(scale q k^T +
// key bias) v without the whole score matrix (Milakov and Gimelshein 2018; Dao et al. 2022). heads
// is a multiple of kv_heads: neighbours share keys (Ainslie et al. 2023). scale: 1 / sqrt(d) when
// absent. f32 or bf16 throughout, but for the key bias and the logarithms, which are f32.
//
// causal 1: query i of s sees keys up to i + t - s; t >= s. window w > 0, with causal: of these,
// the last w. The key bias hides padding by a large negative, finite number; it gets no gradient.
// Gradient: attention_grad(q, k, v, y, log_sum, dy, [key bias]) -> dq, dk, dv.
//
// packed_attention(qkv [b, s, (heads + 2 kv_heads) * d], optional key bias [b, s]; the same) -> the
// same, where q, k and v are columns of one projection's result, in this order: nothing is cut
// apart. Gradient: packed_attention_grad(qkv, y, log_sum, dy, [key bias]) -> dqkv.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& AttentionOp();
const graph::Op& AttentionGradOp();
const graph::Op& PackedAttentionOp();
const graph::Op& PackedAttentionGradOp();
}  // namespace lepton::ops
