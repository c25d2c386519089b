// conv2d_int8(x [n, c, h, w], weights [o, c / groups, kh, kw]; strides, pads, dilations, groups) ->
// y [n, o, ...]: conv2d (conv2d.h) in 8-bit integers. x is f32 or bf16, weights and y are f32.
//
// Both sides are quantised symmetrically as they are, as in matmul_int8.h: each image by its own
// scale, and the weights of each channel that comes out by theirs. So an image has the same bits in
// any batch and on any CPU. (One scale per image and not per window: a pixel is part of many
// windows and is rounded once.) An image or a channel with a NaN or an infinity gives NaN.
//
// For inference: it has no gradient. c / groups * kh * kw at most kInt8MostInner.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& Conv2dInt8Op();
}  // namespace lepton::ops
