// dropout(x; rate, stream): each element is kept with probability 1 - rate and divided by it, else
// 0 (Srivastava et al. 2014). What is kept follows from (seed, step, shard) of the run, the node's
// stream and the element's index alone, so the gradient draws the same mask again instead of
// storing it.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& DropoutOp();
}  // namespace lepton::ops
