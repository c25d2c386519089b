// cross_entropy(logits [.., classes], class indices i32 [..]) -> row losses [..]: softmax and
// negative log-likelihood in one. An index must be in [0, classes), which the caller checks, or
// negative: a row without a target has neither loss nor gradient.
// Gradient: cross_entropy_grad(logits, indices, dloss).
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& CrossEntropyOp();
const graph::Op& CrossEntropyGradOp();
}  // namespace lepton::ops
