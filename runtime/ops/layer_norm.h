// layer_norm(x [.., n], gain [n], bias [n]; epsilon) = (x - mean) / sqrt(variance + epsilon) * gain
// + bias over each row of the last axis (Ba et al. 2016). Further outputs: mean [..] and
// 1/sqrt(variance + epsilon) [..], for the gradient op only. Gradient: layer_norm_grad(x, gain,
// mean, rstd, dy) -> dx, dgain, dbias.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& LayerNormOp();
const graph::Op& LayerNormGradOp();
}  // namespace lepton::ops
