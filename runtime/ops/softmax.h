// softmax(x [.., n]) over each row of the last axis, and log_softmax, its logarithm without the
// loss of precision. Gradients from the output: softmax_grad(y, dy), log_softmax_grad(y, dy).
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& SoftmaxOp();
const graph::Op& SoftmaxGradOp();
const graph::Op& LogSoftmaxOp();
const graph::Op& LogSoftmaxGradOp();
}  // namespace lepton::ops
