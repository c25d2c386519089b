// dweights of bf16 convolutions from shifted images: see shifted_kernel.h.
#pragma once

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels::conv {

graph::KernelEntry ShiftedWeightKernelEntry();

}  // namespace lepton::kernels::conv
