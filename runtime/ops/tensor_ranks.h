// Where a layer that is divided over ranks begins and ends: f and g of Shoeybi et al. 2019,
// section 3.
//   tensor_copy(x) = x, which all ranks have; its gradient is the sum over ranks of what each says.
//   tensor_sum(x) = the sum over ranks of x; its gradient is that of the sum, which all ranks have.
// f32. The ranks are RunState's; without any a sum is x. No kernel runs for a tensor_copy: it is a
// view (graph/plan_builder.cc).
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& TensorCopyOp();
const graph::Op& TensorSumOp();
}  // namespace lepton::ops
