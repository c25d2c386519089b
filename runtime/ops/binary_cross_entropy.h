// binary_cross_entropy(logits [rows, n], targets [rows, n]) -> row losses [rows]: the mean over the
// row of max(z, 0) - z t + log(1 + exp(-|z|)). Gradient: binary_cross_entropy_grad(logits, targets,
// dloss).
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& BinaryCrossEntropyOp();
const graph::Op& BinaryCrossEntropyGradOp();
}  // namespace lepton::ops
