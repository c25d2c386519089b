// Loops over several arrays that are walked with different strides: broadcasting, transposes,
// slices. Axes that can be walked as one are merged first, so a dense case becomes one long row.
// Threads: plain values; Run spreads rows over ThreadPool::Compute(), and every element belongs to
// exactly one row.
#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/tensor/shape.h"

namespace lepton::kernels {

// Elements between neighbours along each axis of a dense tensor.
inline std::vector<int64_t> DenseStrides(const Shape& shape) {
  std::vector<int64_t> strides(shape.rank(), 1);
  for (int axis = shape.rank() - 2; axis >= 0; --axis) {
    strides[axis] = strides[axis + 1] * shape[axis + 1];
  }
  return strides;
}

// The strides with which `shape` is walked when it is repeated to `large`: 0 where repeated.
inline std::vector<int64_t> BroadcastStrides(const Shape& shape, const Shape& large) {
  const std::vector<int64_t> dense = DenseStrides(shape);
  std::vector<int64_t> strides(large.rank(), 0);
  const int missing = large.rank() - shape.rank();
  for (int axis = 0; axis < shape.rank(); ++axis) {
    if (shape[axis] != 1) strides[axis + missing] = dense[axis];
  }
  return strides;
}

template <size_t kArrays>
class StridedLoop {
 public:
  using Strides = std::array<int64_t, kArrays>;

  // `strides`: per array, per axis of `extents`.
  StridedLoop(const Shape& extents, const std::array<std::vector<int64_t>, kArrays>& strides) {
    for (int axis = 0; axis < extents.rank(); ++axis) {
      Strides step;
      for (size_t i = 0; i < kArrays; ++i) step[i] = strides[i][axis];
      AddAxis(extents[axis], step);
    }
    if (axes_.empty()) axes_.push_back({1, {}});
    row_ = axes_.back();
    axes_.pop_back();
    for (const Axis& axis : axes_) rows_ *= axis.extent;
  }

  // body(offsets, count, steps): per array, the offset of a row's first element and the distance to
  // the next one.
  template <typename Body>
  void Run(const Body& body) const {
    if (rows_ == 1) {
      ComputeLoop(row_.extent, kGrain, [&](int64_t begin, int64_t end) {
        Strides offsets;
        for (size_t i = 0; i < kArrays; ++i) offsets[i] = begin * row_.step[i];
        body(offsets, end - begin, row_.step);
      });
      return;
    }
    const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, row_.extent));
    ComputeLoop(rows_, grain, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) body(Offsets(row), row_.extent, row_.step);
    });
  }

 private:
  static constexpr int64_t kGrain = 1 << 15;  // elements for which another thread is worth waking
  struct Axis {
    int64_t extent;
    Strides step;
  };

  void AddAxis(int64_t extent, const Strides& step) {
    if (extent == 1) return;
    bool merges = !axes_.empty();
    for (size_t i = 0; merges && i < kArrays; ++i) {
      merges = axes_.back().step[i] == step[i] * extent;
    }
    if (merges) {
      axes_.back() = {axes_.back().extent * extent, step};
    } else {
      axes_.push_back({extent, step});
    }
  }

  Strides Offsets(int64_t row) const {
    Strides offsets = {};
    for (size_t axis = axes_.size(); axis-- > 0;) {
      const int64_t index = row % axes_[axis].extent;
      row /= axes_[axis].extent;
      for (size_t i = 0; i < kArrays; ++i) offsets[i] += index * axes_[axis].step[i];
    }
    return offsets;
  }

  std::vector<Axis> axes_;
  Axis row_{1, {}};
  int64_t rows_ = 1;
};

}  // namespace lepton::kernels
