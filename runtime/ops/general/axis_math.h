// Along axes, for numbers of any type; not differentiable, for imported models.
//
// reduce_axes(x) -> y: `function` (sum prod max min l1 sum_square mean) over `axes` (none: no
//   change), which keep an extent of 1. Sums of floats are in double, of integers wrap.
// arg_extreme(x) -> i64: the index of the extreme along `axis`, whose extent becomes 1; `largest`
//   1 or 0; of equal ones the first, or with `last` 1 the last.
// cumulative_sum(x) -> y: along `axis`; `exclusive` and `reverse` 0 or 1.
// top_k(x) -> values, i64 indices: the `k` first along `axis` when sorted by size, `largest` first
//   or not; equal ones in the order of their indices.
// general_matmul(a, b: the same number type, not f16 or bf16) -> y: products of the last two axes;
//   the axes before them are broadcast. Integers wrap.
#pragma once

#include "runtime/ops/op_base.h"

namespace lepton::ops::general {

const graph::Op& ReduceAxesOp();
const graph::Op& ArgExtremeOp();
const graph::Op& CumulativeSumOp();
const graph::Op& TopKOp();
const graph::Op& GeneralMatmulOp();

}  // namespace lepton::ops::general
