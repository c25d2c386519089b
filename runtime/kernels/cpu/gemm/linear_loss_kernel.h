// linear_cross_entropy and its gradient on gemm.h, in pieces of the logits. The forward pass takes
// some rows at a time, with all their logits: each row's loss has the bits of matmul and
// cross_entropy. The backward pass takes some classes at a time, of all rows, so that a piece of
// the weight's gradient is finished at once, with the bits of cross_entropy_grad and matmul; the
// hidden states' is summed up piece by piece. Threads: as gemm.h; pieces follow from the shapes
// alone.
#pragma once

#include <vector>

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels::gemm {

std::vector<graph::KernelEntry> LinearLossKernels();

}  // namespace lepton::kernels::gemm
