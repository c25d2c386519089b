// Ops that move elements, and sums by place.
#pragma once

#include <cstdint>

#include "runtime/kernels/cuda/stream.h"

namespace lepton::kernels::cuda {

// y [extents] = factor * x, where x is walked with strides. Element types: bytes of 2 or 4 that are
// moved as they are, or floats that are converted and multiplied.
struct StridedArguments {
  static constexpr int kAxes = 6;
  int axes = 0;
  int64_t extents[kAxes] = {};
  int64_t strides[kAxes] = {};
  int64_t offset = 0;
  int64_t total = 0;
  const void* x = nullptr;
  void* y = nullptr;
  int bytes = 0;  // 0: floats
  bool bf16_x = false, bf16_y = false;
  float factor = 1;
};
void RunStrided(const StridedArguments& arguments, Stream stream);

// x seen as [outer, extent, inner] around an axis.
struct AxisShape {
  int64_t outer = 1;
  int64_t extent = 1;
  int64_t inner = 1;
};

// dx is dy [outer, count, inner] at begin, begin + step, ...; 0 elsewhere.
void RunSliceGrad(AxisShape dx_shape, int64_t begin, int64_t step, int64_t count, const float* dy,
                  float* dx, Stream stream);
// Blocks of `length` elements of `bytes`, one after the other, into y at `offset` + i * `pitch`.
void RunConcatPart(int64_t blocks, int64_t length, int bytes, int64_t pitch, int64_t offset,
                   const void* x, void* y, Stream stream);

// y [outer, count, inner] = x [outer, indices[i], inner]; outside: `missing`, in the bits of an
// element.
void RunGather(AxisShape shape, int64_t count, const int32_t* indices, int bytes, uint32_t missing,
               const void* x, void* y, Stream stream);
// Each place of dx sums its rows of dy in the order of the indices.
void RunGatherGrad(AxisShape dx_shape, int64_t count, const int32_t* indices, const float* dy,
                   float* dx, Stream stream);

void RunFill(int64_t count, float value, float* y, Stream stream);
void RunPositions(int64_t count, int32_t offset, int32_t* y, Stream stream);

// y [outer, inner] = factor * the sum over the axis.
void RunAxisSum(AxisShape shape, const void* x, bool bf16, float factor, void* y, bool bf16_y,
                Stream stream);

// y = the sums of x over the axes along which y was repeated: kept axes give y's place, reduced
// ones are walked for each. Strides are x's.
struct SumToArguments {
  static constexpr int kAxes = 6;
  int kept = 0, reduced = 0;
  int64_t kept_extents[kAxes] = {}, kept_strides[kAxes] = {};
  int64_t reduced_extents[kAxes] = {}, reduced_strides[kAxes] = {};
  int64_t outputs = 1, terms = 1;
  const float* x = nullptr;
  float* y = nullptr;
};
void RunSumTo(const SumToArguments& arguments, Stream stream);

}  // namespace lepton::kernels::cuda
