// sigmoid(x) = 1 / (1 + exp(-x)), element by element.
// Gradient: sigmoid_grad(y, dy).
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& SigmoidOp();
const graph::Op& SigmoidGradOp();
}  // namespace lepton::ops
