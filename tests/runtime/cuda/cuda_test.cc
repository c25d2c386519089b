#include "tests/runtime/cuda/cuda_test.h"

#ifdef LEPTON_EMULATED_CUDA
#include "runtime/kernels/cuda/emulation/threads.h"
#endif

namespace lepton::cuda_test {
namespace {

Result<std::unique_ptr<CudaDevice>>& TheDevice() {
  static auto* const device =
      new Result<std::unique_ptr<CudaDevice>>(kernels::cuda::OpenCudaDevice());
  return *device;
}

}  // namespace

CudaDevice* DeviceOrNull() {
  return TheDevice().ok() ? TheDevice()->get() : nullptr;
}

std::string WhyNoDevice() {
  return TheDevice().status().ToString();
}

#ifdef LEPTON_EMULATED_CUDA
void RunThreadsInReverse(bool reverse) {
  kernels::cuda::emulation::ReverseThreads(reverse);
}
bool IsEmulated() {
  return true;
}
FewBlocks::FewBlocks() : most_(15) {
  kernels::cuda::emulation::LimitBlocks(most_);
}
FewBlocks::~FewBlocks() {
  kernels::cuda::emulation::LimitBlocks(kernels::cuda::emulation::kMostBlocks);
}
#else
void RunThreadsInReverse(bool) {}
bool IsEmulated() {
  return false;
}
FewBlocks::FewBlocks() : most_(65535) {}
FewBlocks::~FewBlocks() = default;
#endif

}  // namespace lepton::cuda_test
