// layer_norm, rms_norm and their gradients, and sum_rows: row by row over threads, with pointwise
// followers on each row while it is in the cache. What is summed over rows (gradients of gain and
// bias) is summed in blocks of rows of fixed size first, then over the blocks, so that the bits do
// not depend on the number of threads.
#pragma once

#include <vector>

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels::norm {

std::vector<graph::KernelEntry> NormKernels();

}  // namespace lepton::kernels::norm
