// silu(x) = x * sigmoid(x) (Hendrycks and Gimpel 2016). SwiGLU is mul(silu(gate), up).
// Gradient: silu_grad(x, dy).
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& SiluOp();
const graph::Op& SiluGradOp();
}  // namespace lepton::ops
