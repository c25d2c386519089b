// distillation(student logits [rows, n], teacher logits [rows, n]; temperature T) -> row losses
// [rows]: T^2 * KL(softmax(teacher / T) || softmax(student / T)) (Hinton et al. 2015, section 2).
// Gradient for the student alone: distillation_grad(student, teacher, dloss).
#pragma once

#include "runtime/graph/op.h"

namespace lepton::ops {
const graph::Op& DistillationOp();
const graph::Op& DistillationGradOp();
}  // namespace lepton::ops
