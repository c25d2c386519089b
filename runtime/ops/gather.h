// gather(x, indices i32; axis) -> x (any type) with the axis replaced by the axes of the indices:
// an embedding when x is [rows, n] and the axis 0. A negative index counts from the end. An index
// outside the axis gives NaN, or 0 for integers, and takes no gradient: callers check.
// Gradient: gather_grad(dy, indices, like x): dy added up in the order of the indices.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& GatherOp();
const graph::Op& GatherGradOp();
}  // namespace lepton::ops
