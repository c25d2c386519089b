// Convolutions without a library, pools and batch normalisation.
#pragma once

#include <cstdint>

#include "runtime/kernels/cuda/stream.h"

namespace lepton::kernels::cuda {

struct WindowAxisArguments {
  int64_t extent = 1, stride = 1, dilation = 1, before = 0;
  int64_t in = 0, out = 0;
};

// x [images, in_channels, h.in, w.in], weights [out_channels, in_channels / groups, h.extent,
// w.extent], y [images, out_channels, h.out, w.out]. Two of them are given, f32 or bf16; the third
// is the result, f32.
struct ConvArguments {
  int64_t images = 0, in_channels = 0, out_channels = 0, groups = 1;
  WindowAxisArguments h, w;
  const void* x = nullptr;
  const void* weights = nullptr;
  const void* y = nullptr;
  float* result = nullptr;
  bool bf16 = false;  // of the two that are given
};
void RunConv(const ConvArguments& arguments, Stream stream);
void RunConvInputGrad(const ConvArguments& arguments, Stream stream);
void RunConvWeightGrad(const ConvArguments& arguments, Stream stream);

struct PoolArguments {
  int64_t planes = 0;
  WindowAxisArguments h, w;
  bool average = false;
  bool include_pad = false;
  const float* x = nullptr;  // of max pools
  const float* dy = nullptr;
  float* y = nullptr;
  float* dx = nullptr;
};
void RunPool(const PoolArguments& arguments, Stream stream);
void RunPoolGrad(const PoolArguments& arguments, Stream stream);

// x [images, channels, pixels] (runtime/ops/batch_norm.h).
struct BatchNormArguments {
  int64_t images = 0, channels = 0, pixels = 0;
  bool training = false;
  bool bf16 = false;  // x, y, dy and dx; else f32
  float epsilon = 0, momentum = 0;
  const void* x = nullptr;
  const float* gain = nullptr;
  const float* bias = nullptr;
  const float* running_mean = nullptr;
  const float* running_variance = nullptr;
  void* y = nullptr;
  float* new_mean = nullptr;
  float* new_variance = nullptr;
  float* mean = nullptr;  // read by the gradient, and where y is made again
  float* rstd = nullptr;
  // The gradient only.
  const void* dy = nullptr;
  void* dx = nullptr;
  float* dgain = nullptr;
  float* dbias = nullptr;
};
void RunBatchNorm(const BatchNormArguments& arguments, Stream stream);
void RunBatchNormApply(const BatchNormArguments& arguments, Stream stream);
void RunBatchNormGrad(const BatchNormArguments& arguments, Stream stream);

}  // namespace lepton::kernels::cuda
