// How shapes of unequal extents meet: aligned at the last axis; an extent of 1 repeats.
// Threads: pure functions.
#pragma once

#include "runtime/base/status.h"
#include "runtime/tensor/shape.h"

namespace lepton::ops::general {

// kInvalidArgument names the two shapes when extents differ and neither is 1.
Result<Shape> BroadcastShape(const Shape& a, const Shape& b);

// "axis" counted from the end when negative; kInvalidArgument when outside [0, rank).
Result<int> ResolveAxis(int64_t axis, int rank);

}  // namespace lepton::ops::general
