// conv2d(x [n, c, h, w], weights [o, c / groups, kh, kw]; strides, pads, dilations, groups) -> y
// [n, o, ...]: cross-correlation, as neural networks call convolution (window.h has the
// attributes). x and weights are both f32, or both bf16: y is f32 in any case. A bias is an add of
// [o, 1, 1]. Gradients: conv2d_input_grad(dy, weights, like x), conv2d_weight_grad(dy, x, like
// weights), with the same attributes: their first two inputs are both f32 or both bf16, and the
// results f32.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
// Of y, for an x and weights of rank 4; INVALID_ARGUMENT if they do not fit.
Result<Shape> ConvolvedShape(const Shape& x, const Shape& weights,
                             const graph::Attributes& attributes);

const graph::Op& Conv2dOp();
const graph::Op& Conv2dInputGradOp();
const graph::Op& Conv2dWeightGradOp();
}  // namespace lepton::ops
