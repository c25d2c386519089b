// What the convolutions' kernels share: memory of a thread, and the setting of the tile unit for
// its products. Threads: each has its own.
#pragma once

#include <cstdint>

#include "runtime/kernels/cpu/gemm/micro.h"
#include "runtime/tensor/buffer.h"

namespace lepton::kernels::conv {

// Grows to what was needed most; what a slot held is gone with the next call for it.
template <int kSlot>
char* ThreadMemory(int64_t bytes) {
  thread_local Buffer buffer;
  if (buffer.size() < static_cast<size_t>(bytes)) buffer = Buffer(bytes);
  return buffer.as<char>();
}

// For the products of one thread.
class ConvScope {
 public:
  explicit ConvScope(const gemm::Micro& micro) : micro_(micro) { micro_.enter(); }
  ~ConvScope() { micro_.leave(); }
  ConvScope(const ConvScope&) = delete;
  ConvScope& operator=(const ConvScope&) = delete;

 private:
  const gemm::Micro& micro_;
};

inline int64_t RoundUp(int64_t value, int64_t step) {
  return (value + step - 1) / step * step;
}

inline int64_t CeilDiv(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

}  // namespace lepton::kernels::conv
