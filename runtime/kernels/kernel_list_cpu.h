// The one list of CPU kernels. To add a kernel: README.md.
// Threads: immutable.
#pragma once

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels {

const graph::KernelTable& CpuKernels();

}  // namespace lepton::kernels
