// reshape(x; shape) -> x, of any type, with other extents and the same elements in the same order.
// One extent of the attribute may be -1: the open extent where x has one, else whatever makes the
// number of elements right. -2 stands for the open sequence, at the place that it has in x. Open
// extents cannot be merged with others or split.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& ReshapeOp();
}  // namespace lepton::ops
