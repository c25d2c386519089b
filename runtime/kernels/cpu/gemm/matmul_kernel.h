// matmul and batch_matmul on gemm.h: the right side packed once when it is frozen, and what follows
// the product computed block by block.
// Threads: as gemm.h.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels::gemm {

std::vector<graph::KernelEntry> MatmulKernels();

// PackCache's name for the packed right side [inner, columns] of a product of this type.
std::string PackLayout(DType dtype, bool transpose_b, int64_t inner, int64_t columns);

}  // namespace lepton::kernels::gemm
