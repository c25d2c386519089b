// tanh(x), element by element.
// Gradient: tanh_grad(y, dy).
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& TanhOp();
const graph::Op& TanhGradOp();
}  // namespace lepton::ops
