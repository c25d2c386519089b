// The kernel of matmul_int8 (runtime/ops/matmul_int8.h). Frozen weights are quantised and packed
// once; rows are quantised as they come. Threads: as graph::Kernel.
#pragma once

#include <memory>

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels::gemm {

std::unique_ptr<graph::Kernel> CreateInt8Matmul(const graph::KernelRequest& request);

}  // namespace lepton::kernels::gemm
