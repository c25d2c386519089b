// sum_rows(x [.., n], f32 or bf16) -> f32 [n]: the sum over all rows of the last axis, in an order
// that depends on the shape alone. The gradient of what is repeated along rows, such as a bias.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& SumRowsOp();
}  // namespace lepton::ops
