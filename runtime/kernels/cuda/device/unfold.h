// Windows of images as columns of a matrix, and back: what turns a convolution into a product.
#pragma once

#include <cstdint>

#include "runtime/kernels/cuda/device/images.h"
#include "runtime/kernels/cuda/stream.h"

namespace lepton::kernels::cuda {

// Where the element of step `step` (channel, row and column of a window) for output pixel `pixel`
// of an image lies: step * of_step + image * of_image + pixel.
struct ColumnPitch {
  int64_t of_step = 0, of_image = 0;
};

// columns = what each window meets in x, 0 beyond it; of x's type. Groups are not looked at.
void RunUnfold(const ConvArguments& arguments, ColumnPitch pitch, void* columns, Stream stream);
// dx = the sums of what each element is met by; f32.
void RunFold(const ConvArguments& arguments, ColumnPitch pitch, const float* columns, float* dx,
             Stream stream);

}  // namespace lepton::kernels::cuda
