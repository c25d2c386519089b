// slice(x; axis, begin, end, step) -> the elements begin, begin + step, ... before end along an
// axis that is not open; any type. 0 <= begin < end <= extent, step >= 1 (default). Gradient:
// slice_grad(dy, like x), 0 where nothing was taken.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& SliceOp();
const graph::Op& SliceGradOp();
}  // namespace lepton::ops
