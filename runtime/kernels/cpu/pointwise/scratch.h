// The registers of pointwise programs, one set a thread.
#pragma once

#include "runtime/kernels/cpu/pointwise/program.h"
#include "runtime/tensor/buffer.h"

namespace lepton::kernels::pointwise {

// `count` blocks of kBlockElements floats. Valid until the thread's next call.
inline float* ThreadRegisters(int count) {
  thread_local Buffer buffer;
  const size_t bytes = count * kBlockElements * sizeof(float);
  if (buffer.size() < bytes) buffer = Buffer(bytes);
  return buffer.as<float>();
}

}  // namespace lepton::kernels::pointwise
