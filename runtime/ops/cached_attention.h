// cached_attention(q [b, s, heads * d], k and v [b, s, kv_heads * d], slots i32 [b], lengths i32
// [b], cache [n, m]; heads, kv_heads (heads), capacity, scale, window) -> y [b, s, heads * d]: the
// next s tokens of b texts, each of which has its earlier keys and values in a row of the cache, a
// slot. f32 or bf16 throughout.
//
// Text j has lengths[j] >= 0 tokens in slots[j]; its new keys and values are added there, which
// changes the cache though it is an input, and query i sees the keys [0, lengths[j] + i], or with
// a window w > 0 the last w of these: y is what attention with causal 1 gives for these rows of the
// whole text, bit by bit. Tokens may be written again: numbers behind lengths[j] + s count for
// nothing (a NaN among them may show, until the slot begins anew). Slots are different; -1 is a row
// that nobody wants, whose y is 0. Callers check that slots are below n and that lengths[j] + s is
// at most `capacity`, a multiple of 32.
//
// How a slot is laid out is the kernel's own; m is at least CacheElements. No gradient.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {

const graph::Op& CachedAttentionOp();

// Of one slot.
int64_t CacheElements(int64_t kv_heads, int64_t size, int64_t capacity);

}  // namespace lepton::ops
