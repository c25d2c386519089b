// add(a, b) = a + b, of one shape.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& AddOp();
}  // namespace lepton::ops
