// mul(a, b) = a * b, element by element, of one shape.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& MulOp();
}  // namespace lepton::ops
