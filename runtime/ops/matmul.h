// matmul(a, b; transpose_a, transpose_b) = op(a) * op(b), rank 2, a and b both f32 or both bf16.
// The result is f32: products are summed in f32 whatever the inputs are.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& MatmulOp();
}  // namespace lepton::ops
