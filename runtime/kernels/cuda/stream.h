// The queue that device code is launched into: a cudaStream_t, or the emulation's. Threads: plain
// values.
#pragma once

namespace lepton::kernels::cuda {

struct Stream {
  void* handle = nullptr;
};

}  // namespace lepton::kernels::cuda
