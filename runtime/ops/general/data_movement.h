// Copies of elements, of any type; not differentiable, for imported models.
//
// convert(x) -> x in the type named by `to` ("f32", "i64", "bool"). To integers: towards 0,
//   saturating, NaN as 0. To bool: whether not 0.
// strided(x) -> y of extents `shape`: y[i, j, ...] = x[offset + i * strides[0] + j * strides[1]
//   ...], x counted in memory order. Reshapes, transposes, slices, repeats and sliding windows.
// pad_constant(x, value: a scalar of x's type) -> y: `before` and `after` each axis, that many more
//   elements; negative ones remove.
// join(x...) -> y: along `axis`; all other extents equal.
#pragma once

#include "runtime/ops/op_base.h"

namespace lepton::ops::general {

const graph::Op& ConvertOp();
const graph::Op& StridedOp();
const graph::Op& PadConstantOp();
const graph::Op& JoinOp();

}  // namespace lepton::ops::general
