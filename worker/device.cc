#include "worker/device.h"

#include "runtime/kernels/cuda/cuda_device.h"

namespace lepton::worker {

Result<std::unique_ptr<kernels::DeviceBackend>> OpenDevice(const std::string& device) {
  if (device == "cpu") return std::unique_ptr<kernels::DeviceBackend>();
  const auto devices = kernels::cuda::ListCudaDevices();
  // Its agent has counted it: it was there.
  if (!devices.ok()) return DeviceFailed("resources.device: cuda: " + devices.status().message());
  auto opened = kernels::cuda::OpenCudaDevice(kTasksGpu);
  if (!opened.ok()) return opened.status().WithContext("resources.device: cuda");
  return std::unique_ptr<kernels::DeviceBackend>(*std::move(opened));
}

Status CheckDevice(const std::string& device) {
  if (device == "cpu") return Status::Ok();
  const auto devices = kernels::cuda::ListCudaDevices();
  return devices.ok() ? Status::Ok() : devices.status().WithContext("resources.device: cuda");
}

int CountGpus() {
  const auto devices = kernels::cuda::ListCudaDevices();
  return devices.ok() ? static_cast<int>(devices->size()) : 0;
}

}  // namespace lepton::worker
