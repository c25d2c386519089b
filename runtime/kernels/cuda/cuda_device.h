// A GPU as the kernels of this folder see it. Which implementation a program has is decided by what
// it links: lepton_cuda (the device, in cuda_device.cc; without CUDA in the build, cuda_absent.cc)
// or, for tests, lepton_cuda_emulated (emulation/emulated_device.cc). Threads: as Accelerator.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/kernels/cuda/attentions.h"
#include "runtime/kernels/cuda/convolutions.h"
#include "runtime/kernels/cuda/products.h"
#include "runtime/kernels/cuda/stream.h"
#include "runtime/kernels/device_backend.h"
#include "runtime/tensor/buffer.h"

namespace lepton::kernels::cuda {

class CudaDevice : public DeviceBackend {
 public:
  // Everything is queued here.
  virtual Stream stream() const = 0;
  virtual Products& products() = 0;
  // Null: there is no library for them.
  virtual Convolutions* convolutions() = 0;
  virtual Attentions* attentions() = 0;
  // Streaming multiprocessors: how many blocks fill the device.
  virtual int multiprocessors() const = 0;

  const graph::KernelTable& kernels() const override;
  void ApplySgd(const SgdUpdate& update, int64_t count, float* weights, const float* gradients,
                float* velocity) override;
  void ApplyAdam(const AdamUpdate& update, int64_t count, float* weights, const float* gradients,
                 float* first, float* second) override;
  void Scale(int64_t count, float factor, float* values) override;
  void MoveTowards(int64_t count, float momentum, float scale, const float* measured,
                   float* values) override;
  Result<double> SumOfSquares(int64_t count, const float* values) override;

 protected:
  // Each implementation's destructor, while memory can still be freed.
  void FreeOwnMemory() { sums_ = {}; }

 private:
  Buffer sums_;  // of SumOfSquares
};

// kUnavailable says why there is none: no such GPU, no driver, or a build without CUDA.
Result<std::unique_ptr<CudaDevice>> OpenCudaDevice(int index = 0);

struct CudaDeviceInfo {
  std::string name;
  int64_t memory_bytes = 0;
  int compute_major = 0, compute_minor = 0;
};
// What this host has; kUnavailable as above when that is nothing.
Result<std::vector<CudaDeviceInfo>> ListCudaDevices();

}  // namespace lepton::kernels::cuda
