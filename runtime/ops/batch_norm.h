// batch_norm(x [n, c, ...], gain [c], bias [c], running mean [c], running variance [c]; epsilon,
// momentum, training) -> y, new running mean, new running variance, mean [c], 1 / sqrt(variance +
// epsilon) [c] (Ioffe and Szegedy 2015). training 1: statistics of this batch; the running ones
// move by `momentum` (default 0.1) towards the mean and the unbiased variance. training 0: the
// running ones are used and pass through. The last two outputs are for the gradient op only.
// Gradient: batch_norm_grad(x, gain, mean, rstd, dy; training) -> dx, dgain, dbias.
// Made again in a backward pass by batch_norm_apply(x, gain, bias, mean, rstd) -> y, of the same
// bits.
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& BatchNormOp();
const graph::Op& BatchNormApplyOp();
const graph::Op& BatchNormGradOp();
}  // namespace lepton::ops
