#include "runtime/kernels/kernel_list_cuda.h"

#include "runtime/kernels/cuda/cuda_kernel.h"

namespace lepton::kernels {

const graph::KernelTable& CudaKernels() {
  static const graph::KernelTable table([] {
    std::vector<graph::KernelEntry> entries;
    for (const auto family :
         {&cuda::ProductKernels, &cuda::AttentionKernels, &cuda::NormKernels,
          &cuda::PointwiseKernels, &cuda::RowKernels, &cuda::ReductionKernels,
          &cuda::MovementKernels, &cuda::TokenKernels, &cuda::ConvLibraryKernels,
          &cuda::ConvProductKernels, &cuda::ImageKernels}) {
      const std::vector<graph::KernelEntry> some = family();
      entries.insert(entries.end(), some.begin(), some.end());
    }
    return entries;
  }());
  return table;
}

}  // namespace lepton::kernels
