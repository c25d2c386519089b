// Convolutions by a library: cuDNN on a GPU that has it, plain loops in the emulation. Threads: one
// caller.
#pragma once

#include <cstddef>
#include <memory>

#include "runtime/kernels/cuda/device/images.h"

namespace lepton::kernels::cuda {

enum class ConvolutionPass { kForward, kInputGrad, kWeightGrad };

// Of the extents in `conv`, whose memory does not count. Sums are f32.
struct ConvolutionShape {
  ConvolutionPass pass = ConvolutionPass::kForward;
  ConvArguments conv;
  bool bf16_result = false;  // else f32; with operands of bf16 only
};

// conv2d(a: x, b: weights), conv2d_input_grad(a: dy, b: weights), conv2d_weight_grad(a: dy, b: x).
struct ConvolutionOperands {
  const void* a = nullptr;
  const void* b = nullptr;
  void* result = nullptr;
  void* workspace = nullptr;
};

class Convolution {
 public:
  virtual ~Convolution() = default;
  virtual size_t workspace_bytes() const = 0;
  virtual void Run(const ConvolutionOperands& operands) = 0;
};

class Convolutions {
 public:
  virtual ~Convolutions() = default;
  // Null when the library has no way to compute it, or none that gives the same bits each time with
  // sums of f32: TF32 is not used.
  virtual std::unique_ptr<Convolution> Make(const ConvolutionShape& shape) = 0;
};

}  // namespace lepton::kernels::cuda
