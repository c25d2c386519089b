// Convolutions and their gradients through oneDNN, in single-threaded primitives over fixed groups
// of images: one image each for y and dx, so that an image gives the same bits in any batch; at
// most kWeightParts groups for dweights, added in order. So no bits depend on the number of
// threads. Images and weights are brought into the layouts that oneDNN prefers and back.
#pragma once

#include <memory>

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels {

inline constexpr int64_t kWeightParts = 4;

// For conv2d, conv2d_input_grad and conv2d_weight_grad: whether oneDNN has more than its reference.
bool CanRunOnednnConv(const graph::KernelRequest& request);
std::unique_ptr<graph::Kernel> CreateOnednnConv(const graph::KernelRequest& request);

}  // namespace lepton::kernels
