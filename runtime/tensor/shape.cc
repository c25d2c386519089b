#include "runtime/tensor/shape.h"

#include <algorithm>

namespace lepton {

bool Shape::open() const {
  return std::any_of(extents_.begin(), extents_.end(), [](int64_t extent) { return extent < 0; });
}

int64_t Shape::elements() const {
  int64_t count = 1;
  for (const int64_t extent : extents_) count *= extent;
  return count;
}

int64_t Shape::rows() const {
  int64_t count = 1;
  for (int axis = 0; axis + 1 < rank(); ++axis) count *= extents_[axis];
  return count;
}

Shape Shape::WithBatch(int64_t batch, int64_t sequence) const {
  Shape bound = *this;
  std::replace(bound.extents_.begin(), bound.extents_.end(), kBatch, batch);
  if (sequence > 0) std::replace(bound.extents_.begin(), bound.extents_.end(), kSequence, sequence);
  return bound;
}

Shape Shape::WithoutAxis(int axis) const {
  Shape smaller = *this;
  smaller.extents_.erase(smaller.extents_.begin() + axis);
  return smaller;
}

std::string Shape::ToString() const {
  std::string text = "[";
  for (int axis = 0; axis < rank(); ++axis) {
    if (axis > 0) text += ", ";
    text += extents_[axis] == kBatch      ? "batch"
            : extents_[axis] == kSequence ? "sequence"
                                          : std::to_string(extents_[axis]);
  }
  return text + "]";
}

std::string TensorType::ToString() const {
  return std::string(DTypeName(dtype)) + shape.ToString();
}

}  // namespace lepton
