// What the glue between nodes and device code is written with. Threads: as graph::Kernel.
#pragma once

#include <memory>
#include <vector>

#include "runtime/graph/kernel_table.h"
#include "runtime/kernels/cuda/cuda_device.h"

namespace lepton::kernels::cuda {

using graph::KernelContext;
using graph::KernelEntry;
using graph::KernelRequest;

inline CudaDevice& DeviceOf(const KernelRequest& request) {
  return static_cast<CudaDevice&>(*request.accelerator);
}

// A kernel without state: a function of the context that queues on the device.
template <void (*function)(const KernelContext&, CudaDevice&)>
class DeviceFunction final : public graph::Kernel {
 public:
  explicit DeviceFunction(CudaDevice& device) : device_(device) {}
  void Run(const KernelContext& context) override { function(context, device_); }
  static std::unique_ptr<graph::Kernel> Create(const KernelRequest& request) {
    return std::make_unique<DeviceFunction>(DeviceOf(request));
  }

 private:
  CudaDevice& device_;
};

// The same with a workspace, whose size follows from the request.
template <void (*function)(const KernelContext&, CudaDevice&),
          size_t (*bytes)(const KernelRequest&)>
class DeviceFunctionWithWorkspace final : public graph::Kernel {
 public:
  explicit DeviceFunctionWithWorkspace(const KernelRequest& request)
      : device_(DeviceOf(request)), bytes_(bytes(request)) {}
  void Run(const KernelContext& context) override { function(context, device_); }
  size_t workspace_bytes() const override { return bytes_; }
  static std::unique_ptr<graph::Kernel> Create(const KernelRequest& request) {
    return std::make_unique<DeviceFunctionWithWorkspace>(request);
  }

 private:
  CudaDevice& device_;
  const size_t bytes_;
};

inline bool AnyRequest(const KernelRequest&) {
  return true;
}

inline KernelEntry CudaEntry(std::string_view op, DType dtype, std::string_view implementation,
                             bool (*can_run)(const KernelRequest&),
                             std::unique_ptr<graph::Kernel> (*create)(const KernelRequest&),
                             bool fuses = false) {
  return {op, dtype, implementation, can_run, create, DeviceKind::kCuda, fuses};
}

template <void (*function)(const KernelContext&, CudaDevice&)>
KernelEntry Own(std::string_view op, DType dtype = DType::kF32) {
  return CudaEntry(op, dtype, "own", &AnyRequest, &DeviceFunction<function>::Create);
}

inline bool IsBf16(const TensorView& view) {
  return view.type.dtype == DType::kBF16;
}

// Each family's kernels, in the order of the list (kernel_list_cuda.cc).
std::vector<KernelEntry> ProductKernels();
std::vector<KernelEntry> PointwiseKernels();
std::vector<KernelEntry> RowKernels();
std::vector<KernelEntry> NormKernels();
std::vector<KernelEntry> ReductionKernels();
std::vector<KernelEntry> MovementKernels();
std::vector<KernelEntry> AttentionKernels();
std::vector<KernelEntry> TokenKernels();
std::vector<KernelEntry> ConvLibraryKernels();
std::vector<KernelEntry> ConvProductKernels();
std::vector<KernelEntry> ImageKernels();

}  // namespace lepton::kernels::cuda
