// Batch normalisation by vectors, on all threads: channel by channel, with sums in double; what
// follows runs on blocks that are in the L1 cache. The bits do not depend on the threads. The
// references are in image_kernels.h.
#pragma once

#include <vector>

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels::norm {

// batch_norm, batch_norm_apply and batch_norm_grad of tensors of the type; the first two take
// followers.
std::vector<graph::KernelEntry> BatchNormKernels(DType dtype);

}  // namespace lepton::kernels::norm
