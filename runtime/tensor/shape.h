// The extents of a row-major tensor. Two extents may be left open while a graph is built: kBatch,
// the number of examples, and kSequence, the length of a text. Each compares equal to itself only
// and is bound to a number when the graph is planned. Threads: plain values.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "runtime/tensor/dtype.h"

namespace lepton {

class Shape {
 public:
  static constexpr int64_t kBatch = -1;
  static constexpr int64_t kSequence = -2;

  Shape() = default;  // a scalar: rank 0, one element
  Shape(std::initializer_list<int64_t> extents) : extents_(extents) {}
  explicit Shape(std::vector<int64_t> extents) : extents_(std::move(extents)) {}

  int rank() const { return static_cast<int>(extents_.size()); }
  int64_t operator[](int axis) const { return extents_[axis]; }
  int64_t back() const { return extents_.back(); }
  const std::vector<int64_t>& extents() const { return extents_; }

  bool open() const;         // contains kBatch or kSequence
  int64_t elements() const;  // 1 for a scalar; not for an open shape
  int64_t rows() const;      // elements / back(): the rows of the last axis; 1 for a scalar
  // The open extents bound; a sequence of 0 leaves kSequence open.
  Shape WithBatch(int64_t batch, int64_t sequence = 0) const;
  Shape WithoutAxis(int axis) const;
  std::string ToString() const;  // "[batch, sequence, 64]"

  friend bool operator==(const Shape&, const Shape&) = default;

 private:
  std::vector<int64_t> extents_;
};

struct TensorType {
  DType dtype = DType::kF32;
  Shape shape;

  size_t bytes() const { return static_cast<size_t>(shape.elements()) * DTypeSize(dtype); }
  std::string ToString() const;  // "f32[batch, 64]"
  friend bool operator==(const TensorType&, const TensorType&) = default;
};

}  // namespace lepton
