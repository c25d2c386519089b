// mse(predictions [rows, n], targets [rows, n]) -> row losses [rows]: the mean over the row of the
// squared difference. Gradient: mse_grad(predictions, targets, dloss).
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& MeanSquaredErrorOp();
const graph::Op& MeanSquaredErrorGradOp();
}  // namespace lepton::ops
