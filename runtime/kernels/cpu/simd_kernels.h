// The loops of simd/loops.h as kernels, spread over ThreadPool::Compute().
#pragma once

#include <vector>

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels {

// Per op: AVX-512, AVX2, baseline, in this order; each runs only on a CPU that has its set.
std::vector<graph::KernelEntry> SimdKernels();

}  // namespace lepton::kernels
