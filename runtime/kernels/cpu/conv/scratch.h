// Memory of a thread for the convolutions' kernels. Threads: each has its own.
#pragma once

#include <cstdint>

#include "runtime/tensor/buffer.h"

namespace lepton::kernels::conv {

// Grows to what was needed most; what a slot held is gone with the next call for it.
template <int kSlot>
char* ThreadMemory(int64_t bytes) {
  thread_local Buffer buffer;
  if (buffer.size() < static_cast<size_t>(bytes)) buffer = Buffer(bytes);
  return buffer.as<char>();
}

}  // namespace lepton::kernels::conv
