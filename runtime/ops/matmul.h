// matmul(a, b; transpose_a, transpose_b) = op(a) * op(b), a and b both f32 or both bf16. The result
// is f32: products are summed in f32 whatever the inputs are.
//
// An input of rank above 2 counts as the matrix of its rows: [.., k] * [k, n] is [.., n], and
// [.., m] transposed * [.., n], over the same leading axes, is [m, n]. An input whose rows become
// columns of the result, a transposed b, must have rank 2. For a product per leading index see
// batch_matmul.h.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& MatmulOp();
}  // namespace lepton::ops
