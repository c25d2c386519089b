// Elements chosen by i64 indices; x is of any type. Not differentiable, for imported models. An
// index counts from the end when negative; one outside its axis reads 0 and is not written.
//
// take(x, indices) -> y: along `axis`, x's axis replaced by the axes of the indices.
// gather_elements(x, indices: of x's rank) -> y of the indices' shape: y[i][j] =
// x[indices[i][j]][j]
//   for `axis` 0.
// scatter_elements(x, indices, updates) -> x with the updates written where gather_elements reads;
//   `reduction` "none", "add", "mul", "min" or "max".
// gather_nd(x, indices) -> y: the last axis of the indices is a position in x's axes after the
//   first `batch_axes`, which both share.
// scatter_nd(x, indices, updates) -> x with the updates at those positions, by `reduction`.
#pragma once

#include "runtime/ops/op_base.h"

namespace lepton::ops::general {

const graph::Op& TakeOp();
const graph::Op& GatherElementsOp();
const graph::Op& ScatterElementsOp();
const graph::Op& GatherNdOp();
const graph::Op& ScatterNdOp();

}  // namespace lepton::ops::general
