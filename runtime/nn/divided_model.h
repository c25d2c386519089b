// What programs and their callers need of a model that is divided over ranks beside its slices
// (tensor_slices.h): the undivided model, and the norm of its gradient.
// Threads: pure; NormOverRanks is collective over its group.
#pragma once

#include <span>
#include <vector>

#include "runtime/nn/training_program.h"

namespace lepton::nn {

// Parameters as those of the undivided model in its own flat buffers, in the same order.
std::vector<ParameterView> WholeParameters(const std::vector<ParameterView>& parameters);

// The Euclidean norm of the undivided model's gradient, the same bits on all ranks: what all have
// counts once, as the first of them has it, and each one's slices. NaN where the group failed.
double NormOverRanks(const std::vector<ParameterView>& parameters, const TensorPlace& place,
                     std::span<const float> gradients, graph::TensorGroup& group);

}  // namespace lepton::nn
