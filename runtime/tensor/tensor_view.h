// A typed window onto memory that somebody else owns; row-major and dense.
// Ownership: none; valid while the memory is. Threads: plain values.
#pragma once

#include <span>

#include "runtime/tensor/shape.h"

namespace lepton {

struct TensorView {
  void* data = nullptr;
  TensorType type;

  const Shape& shape() const { return type.shape; }
  int64_t elements() const { return type.shape.elements(); }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data);
  }
  template <typename T>
  std::span<T> span() const {
    return {as<T>(), static_cast<size_t>(elements())};
  }
};

}  // namespace lepton
