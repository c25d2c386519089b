// layer_norm(x [rows, n], gain [n], bias [n]; epsilon) = (x - mean) / sqrt(variance + epsilon) *
// gain
// + bias over each row (Ba et al. 2016). Further outputs: mean [rows] and 1/sqrt(variance +
// epsilon) [rows], for the gradient op only. Gradient: layer_norm_grad(x, gain, mean, rstd, dy) ->
// dx, dgain, dbias.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& LayerNormOp();
const graph::Op& LayerNormGradOp();
}  // namespace lepton::ops
