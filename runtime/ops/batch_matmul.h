// batch_matmul(a [.., m, k], b [.., k, n]; transpose_a, transpose_b) -> f32 [.., m, n]: a product
// per index of the leading axes, which must be equal (broadcast_to repeats). a and b both f32 or
// both bf16; the flags transpose the last two axes.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& BatchMatmulOp();
}  // namespace lepton::ops
