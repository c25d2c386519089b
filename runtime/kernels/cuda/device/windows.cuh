// Which inputs and outputs of a convolution meet. Device code only.
#pragma once

#include "runtime/kernels/cuda/device/code.cuh"
#include "runtime/kernels/cuda/device/images.h"

namespace lepton::kernels::cuda {

// The input that step `i` of the window meets at `output`; -1: padding.
__device__ inline int64_t InputAt(const WindowAxisArguments& axis, int64_t output, int64_t i) {
  const int64_t at = output * axis.stride + i * axis.dilation - axis.before;
  return at >= 0 && at < axis.in ? at : -1;
}
// The output whose window meets `input` at step `i`; -1: none.
__device__ inline int64_t OutputAt(const WindowAxisArguments& axis, int64_t input, int64_t i) {
  const int64_t at = input + axis.before - i * axis.dilation;
  return at >= 0 && at % axis.stride == 0 && at / axis.stride < axis.out ? at / axis.stride : -1;
}

}  // namespace lepton::kernels::cuda
