// reduce(x, f32 or bf16; axis, kind) -> f32: the sum or the mean over one axis, which disappears.
// expand(x, like; axis, divide): its opposite: x repeated along a new axis to like's shape, divided
// by the axis's extent if asked. Each is the other's gradient.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& ReduceOp();
const graph::Op& ExpandOp();
}  // namespace lepton::ops
