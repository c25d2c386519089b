// A build without CUDA.
#include "runtime/kernels/cuda/cuda_device.h"

namespace lepton::kernels::cuda {
namespace {

Status NoCuda() {
  return Unavailable(
      "this build has no CUDA: install the CUDA Toolkit with cuDNN and build again with "
      "LEPTON_WITH_CUDA=ON");
}

}  // namespace

Result<std::unique_ptr<CudaDevice>> OpenCudaDevice(int) {
  return NoCuda();
}

Result<std::vector<CudaDeviceInfo>> ListCudaDevices() {
  return NoCuda();
}

}  // namespace lepton::kernels::cuda
