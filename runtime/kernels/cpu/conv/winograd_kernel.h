// Convolutions of f32 with windows of 3 x 3 and stride 1, and their gradients, by the minimal
// filtering F(2 x 2, 3 x 3) (Lavin and Gray 2016, "Fast algorithms for convolutional neural
// networks"): four output pixels from a tile of 4 x 4 inputs take 16 multiplications instead of 36.
// Tiles and weights are transformed, multiplied as 16 products over the channels (gemm/micro.h),
// and the result is transformed back, panel by panel of 32 tiles, within the caches. dweights are
// F(3 x 3, 2 x 2), of the same tiles: nine taps from 2 x 2 pixels of dy.
//
// A pixel's sums do not depend on what else is in the batch. They are not those of the direct sum:
// errors are 1.0 to 1.7 times as large
// (Convolutions.MinimalFilteringLosesLittle). A number that is not finite spreads over its tile.
//
// bf16 with Bf16Sums::kPairs: tiles and weights are transformed in f32, from f32 masters where
// there are any, and rounded to bf16 before they are multiplied, a lane per channel all the way
// (simd::TurnedTiles): tiles are the rows of the products, or for dweights their inner axis.
// Outputs are 0.4% of their size off the direct sums (MinimalFilteringOfBf16LosesLittle), which
// with weights rounded to bf16 are 0.16% off those of f32 weights; rounding an output to bf16 takes
// another 0.17%.
#pragma once

#include <memory>
#include <vector>

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels::conv {

// conv2d, conv2d_input_grad, conv2d_weight_grad.
std::vector<graph::KernelEntry> WinogradKernels();

// Of those the last (winograd_weight_kernel.cc).
std::unique_ptr<graph::Kernel> CreateWinogradWeights(const graph::KernelRequest& request);

}  // namespace lepton::kernels::conv
