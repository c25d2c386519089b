// Values that follow from attributes and the extents of others.
//
// constant(; dtype, shape, data) -> the bytes of the attribute `data`, by type. No inputs: it is
//   computed once, with what depends on parameters only.
// index_range(like: any; axis) -> i32 [n]: 0, 1, ..., n the extent of `like` along the axis, which
//   may be open.
// repeat(x: any, like...; shape, marks, axes) -> x repeated to `shape`: an extent of x is equal, or
//   1, or missing. A negative extent of `shape` that equals marks[k] is that of the k-th `like`
//   along axes[k]: so an open extent is found again once it is known. Gradient, of f32: sum_to.
#pragma once

#include "runtime/ops/op_base.h"

namespace lepton::ops::general {

const graph::Op& ConstantOp();
const graph::Op& IndexRangeOp();
const graph::Op& RepeatOp();

}  // namespace lepton::ops::general
