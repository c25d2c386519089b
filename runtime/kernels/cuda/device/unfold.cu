#include "runtime/kernels/cuda/device/unfold.h"

#include "runtime/kernels/cuda/device/windows.cuh"

namespace lepton::kernels::cuda {
namespace {

constexpr int kUnfoldThreads = 256;

// A thread per element of the columns.
template <typename T>
__global__ void Unfold(const ConvArguments a, int64_t steps, ColumnPitch pitch, T* columns) {
  const int64_t index = GlobalIndex();
  const int64_t pixels = a.h.out * a.w.out;
  if (index >= a.images * steps * pixels) return;
  const int64_t pixel = index % pixels, step = index / pixels % steps;
  const int64_t image = index / pixels / steps;
  const int64_t j = step % a.w.extent, i = step / a.w.extent % a.h.extent;
  const int64_t channel = step / a.w.extent / a.h.extent;
  const int64_t h = InputAt(a.h, pixel / a.w.out, i), w = InputAt(a.w, pixel % a.w.out, j);
  T value{};
  if (h >= 0 && w >= 0) {
    const T* x = static_cast<const T*>(a.x);
    value = x[((image * a.in_channels + channel) * a.h.in + h) * a.w.in + w];
  }
  columns[step * pitch.of_step + image * pitch.of_image + pixel] = value;
}

// A thread per element of dx.
__global__ void Fold(const ConvArguments a, ColumnPitch pitch, const float* columns, float* dx) {
  const int64_t index = GlobalIndex();
  if (index >= a.images * a.in_channels * a.h.in * a.w.in) return;
  const int64_t column = index % a.w.in, row = index / a.w.in % a.h.in;
  const int64_t channel = index / a.w.in / a.h.in % a.in_channels;
  const int64_t image = index / a.w.in / a.h.in / a.in_channels;
  float sum = 0;
  for (int64_t i = 0; i < a.h.extent; ++i) {
    const int64_t h = OutputAt(a.h, row, i);
    if (h < 0) continue;
    for (int64_t j = 0; j < a.w.extent; ++j) {
      const int64_t w = OutputAt(a.w, column, j);
      if (w < 0) continue;
      const int64_t step = (channel * a.h.extent + i) * a.w.extent + j;
      sum += columns[step * pitch.of_step + image * pitch.of_image + h * a.w.out + w];
    }
  }
  dx[index] = sum;
}

}  // namespace

void RunUnfold(const ConvArguments& a, ColumnPitch pitch, void* columns, Stream stream) {
  const int64_t steps = a.in_channels * a.h.extent * a.w.extent;
  const Grid grid{Blocks(a.images * steps * a.h.out * a.w.out, kUnfoldThreads)};
  if (a.bf16) {
    LaunchFlat(Unfold<Bf16>, grid, kUnfoldThreads, stream, a, steps, pitch,
               static_cast<Bf16*>(columns));
  } else {
    LaunchFlat(Unfold<float>, grid, kUnfoldThreads, stream, a, steps, pitch,
               static_cast<float*>(columns));
  }
}

void RunFold(const ConvArguments& a, ColumnPitch pitch, const float* columns, float* dx,
             Stream stream) {
  const int64_t count = a.images * a.in_channels * a.h.in * a.w.in;
  LaunchFlat(Fold, Grid{Blocks(count, kUnfoldThreads)}, kUnfoldThreads, stream, a, pitch, columns,
             dx);
}

}  // namespace lepton::kernels::cuda
