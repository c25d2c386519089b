// Walks the elements of a tensor in memory order while keeping track of the matching positions in
// others that are laid out differently. Threads: plain values.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "runtime/tensor/shape.h"

namespace lepton::kernels::general {

inline std::vector<int64_t> MemoryStrides(const Shape& shape) {
  std::vector<int64_t> strides(shape.rank(), 1);
  for (int axis = shape.rank() - 2; axis >= 0; --axis) {
    strides[axis] = strides[axis + 1] * shape[axis + 1];
  }
  return strides;
}

// Strides with which `small` is read while `large`, to which it repeats, is walked.
inline std::vector<int64_t> RepeatStrides(const Shape& small, const Shape& large) {
  std::vector<int64_t> strides(large.rank(), 0);
  const std::vector<int64_t> memory = MemoryStrides(small);
  for (int axis = 0; axis < small.rank(); ++axis) {
    if (small[axis] != 1) strides[axis + large.rank() - small.rank()] = memory[axis];
  }
  return strides;
}

// body(i, positions): for each element i of `shape`, its position in each of the n layouts.
template <size_t n, typename Body>
void Walk(const Shape& shape, const std::array<std::vector<int64_t>, n>& strides,
          const Body& body) {
  const int64_t count = shape.elements();
  std::vector<int64_t> index(shape.rank(), 0);
  std::array<int64_t, n> positions = {};
  for (int64_t i = 0; i < count; ++i) {
    body(i, positions);
    for (int axis = shape.rank() - 1; axis >= 0; --axis) {
      const bool carry = ++index[axis] == shape[axis];
      const int64_t steps = carry ? 1 - shape[axis] : 1;
      for (size_t k = 0; k < n; ++k) positions[k] += steps * strides[k][axis];
      if (!carry) break;
      index[axis] = 0;
    }
  }
}

// An axis seen as [outer, extent, inner].
struct AxisSplit {
  AxisSplit(const Shape& shape, int64_t axis) {
    if (axis < 0) axis += shape.rank();
    for (int i = 0; i < shape.rank(); ++i) {
      (i < axis ? outer : i == axis ? extent : inner) *= shape[i];
    }
  }
  int64_t outer = 1, extent = 1, inner = 1;
};

}  // namespace lepton::kernels::general
