// conv2d_int8 (runtime/ops/conv2d_int8.h): images are quantised with their channels last, four at a
// time as one word, and unfolded into the left side of a product of 8-bit integers (gemm/micro.h);
// weights are the right side, packed once where they are frozen. Integer sums have one value, so
// every CPU gives the same bits.
#pragma once

#include <vector>

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels::conv {

std::vector<graph::KernelEntry> Int8ConvKernels();

}  // namespace lepton::kernels::conv
