// add(a, b) = a + b, element by element, with broadcasting (broadcast_to.h).
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& AddOp();
}  // namespace lepton::ops
