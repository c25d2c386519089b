// rms_norm(x [.., n], gain [n]; epsilon) = x / sqrt(mean(x^2) + epsilon) * gain over each row of
// the last axis (Zhang and Sennrich 2019). Further output: the factor 1 / sqrt(...) [..], for the
// gradient op only. Gradient: rms_norm_grad(x, gain, rstd, dy) -> dx, dgain.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& RmsNormOp();
const graph::Op& RmsNormGradOp();
}  // namespace lepton::ops
