// transpose(x; perm) -> y, of any type: axis i of y is axis perm[i] of x.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& TransposeOp();
}  // namespace lepton::ops
