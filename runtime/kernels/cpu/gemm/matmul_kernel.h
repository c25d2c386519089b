// matmul and batch_matmul on gemm.h: the right side packed once when it is frozen, and what follows
// the product computed block by block.
// Threads: as gemm.h.
#pragma once

#include <vector>

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels::gemm {

std::vector<graph::KernelEntry> MatmulKernels();

}  // namespace lepton::kernels::gemm
