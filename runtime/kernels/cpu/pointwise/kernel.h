// Pointwise nodes that run as one step, and single ones with bf16 inputs or outputs.
// Threads: spread over ThreadPool::Compute(); cut by shape alone.
#pragma once

#include <memory>
#include <vector>

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels::pointwise {

// One entry per op and element type; they take followers.
std::vector<graph::KernelEntry> PointwiseKernels();

}  // namespace lepton::kernels::pointwise
