// Direct convolutions: correct for every shape, and what runs where cuDNN cannot.
#include "runtime/kernels/cuda/device/images.h"
#include "runtime/kernels/cuda/device/windows.cuh"

namespace lepton::kernels::cuda {
namespace {

constexpr int kConvThreads = 256;

__device__ int64_t GroupIn(const ConvArguments& a) {
  return a.in_channels / a.groups;
}
__device__ int64_t GroupOut(const ConvArguments& a) {
  return a.out_channels / a.groups;
}

// A thread per element of y.
__global__ void Conv(const ConvArguments a) {
  const int64_t index = GlobalIndex();
  if (index >= a.images * a.out_channels * a.h.out * a.w.out) return;
  const int64_t column = index % a.w.out, row = index / a.w.out % a.h.out;
  const int64_t out = index / a.w.out / a.h.out % a.out_channels;
  const int64_t image = index / a.w.out / a.h.out / a.out_channels;
  const Floats x{a.x, a.bf16}, weights{a.weights, a.bf16};
  const int64_t first_channel = out / GroupOut(a) * GroupIn(a);
  float sum = 0;
  for (int64_t c = 0; c < GroupIn(a); ++c) {
    const int64_t plane = (image * a.in_channels + first_channel + c) * a.h.in;
    for (int64_t i = 0; i < a.h.extent; ++i) {
      const int64_t h = InputAt(a.h, row, i);
      if (h < 0) continue;
      for (int64_t j = 0; j < a.w.extent; ++j) {
        const int64_t w = InputAt(a.w, column, j);
        if (w < 0) continue;
        sum += x[(plane + h) * a.w.in + w] *
               weights[((out * GroupIn(a) + c) * a.h.extent + i) * a.w.extent + j];
      }
    }
  }
  a.result[index] = sum;
}

// A thread per element of x.
__global__ void ConvInputGrad(const ConvArguments a) {
  const int64_t index = GlobalIndex();
  if (index >= a.images * a.in_channels * a.h.in * a.w.in) return;
  const int64_t column = index % a.w.in, row = index / a.w.in % a.h.in;
  const int64_t channel = index / a.w.in / a.h.in % a.in_channels;
  const int64_t image = index / a.w.in / a.h.in / a.in_channels;
  const Floats dy{a.y, a.bf16}, weights{a.weights, a.bf16};
  const int64_t first_out = channel / GroupIn(a) * GroupOut(a);
  const int64_t c = channel % GroupIn(a);
  float sum = 0;
  for (int64_t o = first_out; o < first_out + GroupOut(a); ++o) {
    for (int64_t i = 0; i < a.h.extent; ++i) {
      const int64_t h = OutputAt(a.h, row, i);
      if (h < 0) continue;
      for (int64_t j = 0; j < a.w.extent; ++j) {
        const int64_t w = OutputAt(a.w, column, j);
        if (w < 0) continue;
        sum += dy[((image * a.out_channels + o) * a.h.out + h) * a.w.out + w] *
               weights[((o * GroupIn(a) + c) * a.h.extent + i) * a.w.extent + j];
      }
    }
  }
  a.result[index] = sum;
}

int64_t WeightCount(const ConvArguments& a) {
  return a.out_channels * (a.in_channels / a.groups) * a.h.extent * a.w.extent;
}

// A warp per element of the weights; those beyond the last one do its work again.
__global__ void ConvWeightGrad(const ConvArguments a, int64_t count) {
  const int64_t own = GlobalIndex() / kWarp;
  const int64_t index = own < count ? own : count - 1;
  const int lane = threadIdx.x % kWarp;
  const int64_t j = index % a.w.extent, i = index / a.w.extent % a.h.extent;
  const int64_t c = index / a.w.extent / a.h.extent % GroupIn(a);
  const int64_t o = index / a.w.extent / a.h.extent / GroupIn(a);
  const int64_t channel = o / GroupOut(a) * GroupIn(a) + c;
  const Floats dy{a.y, a.bf16}, x{a.x, a.bf16};
  const int64_t pixels = a.h.out * a.w.out;
  float sum = 0;
  for (int64_t at = lane; at < a.images * pixels; at += kWarp) {
    const int64_t image = at / pixels, row = at % pixels / a.w.out, column = at % a.w.out;
    const int64_t h = InputAt(a.h, row, i), w = InputAt(a.w, column, j);
    if (h < 0 || w < 0) continue;
    sum += dy[((image * a.out_channels + o) * a.h.out + row) * a.w.out + column] *
           x[((image * a.in_channels + channel) * a.h.in + h) * a.w.in + w];
  }
  sum = WarpSum(sum);
  if (lane == 0) a.result[index] = sum;
}

}  // namespace

void RunConv(const ConvArguments& a, Stream stream) {
  const int64_t count = a.images * a.out_channels * a.h.out * a.w.out;
  LaunchFlat(Conv, Grid{Blocks(count, kConvThreads)}, kConvThreads, stream, a);
}

void RunConvInputGrad(const ConvArguments& a, Stream stream) {
  const int64_t count = a.images * a.in_channels * a.h.in * a.w.in;
  LaunchFlat(ConvInputGrad, Grid{Blocks(count, kConvThreads)}, kConvThreads, stream, a);
}

void RunConvWeightGrad(const ConvArguments& a, Stream stream) {
  Launch(ConvWeightGrad, Grid{Blocks(WeightCount(a) * kWarp, kConvThreads)}, kConvThreads, 0,
         stream, a, WeightCount(a));
}

}  // namespace lepton::kernels::cuda
