// The one list of CUDA kernels. To add a kernel: cuda/README.md.
// Threads: immutable.
#pragma once

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels {

const graph::KernelTable& CudaKernels();

}  // namespace lepton::kernels
