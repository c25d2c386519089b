// How gather, slice and transpose see their tensors. Threads: plain values.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "runtime/graph/kernel_table.h"
#include "runtime/kernels/cpu/strided.h"

namespace lepton::kernels {

// x as [outer, extent, inner] around the axis, and `count` indices.
struct GatherView {
  GatherView(const Shape& x, const TensorView& index_tensor, const graph::Attributes& attributes)
      : count(index_tensor.elements()), indices(index_tensor.as<int32_t>()) {
    const int64_t axis = attributes.Int("axis");
    for (int i = 0; i < x.rank(); ++i) (i < axis ? outer : i == axis ? extent : inner) *= x[i];
  }
  // Along the axis; -1 for an index outside it.
  int64_t Row(int64_t i) const {
    const int64_t row = indices[i] < 0 ? indices[i] + extent : indices[i];
    return row >= 0 && row < extent ? row : -1;
  }

  int64_t outer = 1;
  int64_t extent = 1;
  int64_t inner = 1;
  int64_t count;
  const int32_t* indices;
};

// What an index outside the axis gives: NaN, or 0 for integers.
inline void FillMissing(DType dtype, int64_t count, void* y) {
  if (dtype == DType::kF32) {
    std::fill_n(static_cast<float*>(y), count, std::numeric_limits<float>::quiet_NaN());
  } else if (dtype == DType::kBF16) {
    std::fill_n(static_cast<uint16_t*>(y), count, uint16_t{0x7fc0});
  } else {
    std::fill_n(static_cast<int32_t*>(y), count, 0);
  }
}

// x walked in the order of the slice.
struct SliceWalk {
  SliceWalk(const Shape& x, const graph::Attributes& attributes) : strides(DenseStrides(x)) {
    const int64_t axis = attributes.Int("axis");
    offset = attributes.Int("begin") * strides[axis];
    strides[axis] *= attributes.Int("step", 1);
  }
  std::vector<int64_t> strides;
  int64_t offset;
};

// x walked in the order of the transposed tensor.
inline std::vector<int64_t> TransposedStrides(const Shape& x, const std::vector<int64_t>& perm) {
  const std::vector<int64_t> dense = DenseStrides(x);
  std::vector<int64_t> strides;
  for (const int64_t axis : perm) strides.push_back(dense[axis]);
  return strides;
}

}  // namespace lepton::kernels
