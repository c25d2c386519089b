// max_pool2d(x [n, c, h, w]; kernel, strides, pads, dilations) -> y: the largest element under each
// window; padding never wins. average_pool2d(x; ..., include_pad): the mean, over the whole window
// with include_pad 1 (default), else over what lies in x. (window.h has the attributes.) A global
// average is a reduce of the reshaped [n, c, h * w].
// Gradients: max_pool2d_grad(x, dy), to the first of equal elements; average_pool2d_grad(dy, like
// x).
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& MaxPool2dOp();
const graph::Op& MaxPool2dGradOp();
const graph::Op& AveragePool2dOp();
const graph::Op& AveragePool2dGradOp();
}  // namespace lepton::ops
