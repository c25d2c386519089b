// Convolutions of bf16 images and weights, without groups, as products on the blocks and panels of
// gemm/micro.h: each side is put into place as it is read, nothing as large as the unfolded images
// is ever made. The sums of an output pixel have one order, whatever else is in the batch.
#pragma once

#include <vector>

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels::conv {

// conv2d, conv2d_input_grad, conv2d_weight_grad.
std::vector<graph::KernelEntry> ConvKernels();

}  // namespace lepton::kernels::conv
