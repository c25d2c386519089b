// relu(x) = max(x, 0), element by element; its slope at 0 is 0.
// Gradient: relu_grad(y, dy).
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& ReluOp();
const graph::Op& ReluGradOp();
}  // namespace lepton::ops
