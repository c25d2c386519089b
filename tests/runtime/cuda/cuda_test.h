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

}  // namespace lepton::cuda_test
