// linear_cross_entropy(hidden [.., d], weight [d, classes], class indices i32 [..]) -> row losses,
// tops and sums [..]: cross_entropy of matmul(hidden, weight), whose logits are never all in memory
// at once: kernels make a piece of them at a time, of at most `piece_bytes`. A row's top is its
// largest logit, its sum that of e^(logit - top). Indices are cross_entropy's; a row without a
// target has loss 0, top 0 and sum 1. With transpose_b the weight is [classes, d].
//
// Hidden and weight are f32, or both bf16; where hidden is bf16 a weight of f32 is rounded to it.
// Losses, tops and sums are f32.
// Gradient: linear_cross_entropy_grad(hidden, weight, indices, tops, sums, dloss) -> dhidden and
// dweight, both f32; the logits are made once more, and their gradient is rounded to hidden's type
// as that of a matmul's result is.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& LinearCrossEntropyOp();
const graph::Op& LinearCrossEntropyGradOp();
}  // namespace lepton::ops
