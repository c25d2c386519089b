// gelu(x) = x * Phi(x) with Phi the normal distribution function, through erf (Hendrycks and Gimpel
// 2016; the exact form).
// gelu_tanh(x): the tanh approximation, x * sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)), of GPT-2.
// Gradients: gelu_grad(x, dy), gelu_tanh_grad(x, dy).
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& GeluOp();
const graph::Op& GeluGradOp();
const graph::Op& GeluTanhOp();
const graph::Op& GeluTanhGradOp();
}  // namespace lepton::ops
