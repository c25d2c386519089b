// gelu(x) = x * Phi(x) with Phi the normal distribution function, through erf (Hendrycks and Gimpel
// 2016; the exact form, not the tanh approximation).
// Gradient: gelu_grad(x, dy).
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& GeluOp();
const graph::Op& GeluGradOp();
}  // namespace lepton::ops
