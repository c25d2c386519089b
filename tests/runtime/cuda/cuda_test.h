// The device of a test program: the host's GPU, or the emulated one in a program that links it.
#pragma once

#include <string>

#include "runtime/kernels/cuda/cuda_device.h"

namespace lepton::cuda_test {

using kernels::cuda::CudaDevice;

// One for all tests of the program; null where there is none.
CudaDevice* DeviceOrNull();
std::string WhyNoDevice();
// In the emulation the threads of a block run from the last to the first; nothing on a GPU.
void RunThreadsInReverse(bool reverse);
bool IsEmulated();
// How many blocks a grid takes along its second and third axes: few in the emulation while one
// lives.
class FewBlocks {
 public:
  FewBlocks();
  ~FewBlocks();
  FewBlocks(const FewBlocks&) = delete;
  FewBlocks& operator=(const FewBlocks&) = delete;
  int64_t most() const { return most_; }

 private:
  int64_t most_;
};

}  // namespace lepton::cuda_test
