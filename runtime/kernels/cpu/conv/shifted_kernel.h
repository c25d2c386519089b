// Convolutions of stride 1 or of 1 x 1, and dx of any, without unfolding the images: each is copied
// once with a border of zeros (planes.h), and a tap is the same memory at another distance. Nothing
// is turned: channels stay first, on both sides of the product and in what comes out.
//
// Where lines are short, the border is left away and each tap of a line gets a copy of its own, and
// of small images several are worked on together, so that the packed weights are read less often.
//
// dx of a stride is made phase by phase: its pixels (i * stride + phase) meet some of the taps
// only, and these at stride 1. Forward and for dx, the weights are the left side and pixels the
// right one, in pairs of channels, as AMX's tiles take them from where they lie; the bits are those
// of conv_kernel.h. For dweights x is the left side, and dy, packed, the right one.
#pragma once

#include <vector>

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels::conv {

// conv2d, conv2d_input_grad, conv2d_weight_grad of bf16; they refuse what they would not be faster
// with. Of dweights the bits depend on the shape alone.
std::vector<graph::KernelEntry> ShiftedConvKernels();

}  // namespace lepton::kernels::conv
