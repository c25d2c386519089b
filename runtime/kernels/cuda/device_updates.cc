// What all kinds of CUDA devices share: their kernels and updates.
#include <cmath>

#include "runtime/kernels/cuda/cuda_device.h"
#include "runtime/kernels/cuda/device/updates.h"
#include "runtime/kernels/kernel_list_cuda.h"

namespace lepton::kernels::cuda {

const graph::KernelTable& CudaDevice::kernels() const {
  return CudaKernels();
}

void CudaDevice::ApplySgd(const SgdUpdate& update, int64_t count, float* weights,
                          const float* gradients, float* velocity) {
  RunSgd(update, count, weights, gradients, velocity, stream());
}

void CudaDevice::ApplyAdam(const AdamUpdate& update, int64_t count, float* weights,
                           const float* gradients, float* first, float* second) {
  RunAdam(update, count, weights, gradients, first, second, stream());
}

void CudaDevice::Scale(int64_t count, float factor, float* values) {
  RunScale(count, factor, values, stream());
}

void CudaDevice::MoveTowards(int64_t count, float momentum, float scale, const float* measured,
                             float* values) {
  RunMoveTowards(count, momentum, scale, measured, values, stream());
}

Result<double> CudaDevice::SumOfSquares(int64_t count, const float* values) {
  if (count == 0) return 0.0;
  if (sums_.size() == 0) {
    LEPTON_ASSIGN_OR_RETURN(sums_, Buffer::On(this, kSquareSums * sizeof(double)));
  }
  RunSumOfSquares(count, values, sums_.as<double>(), stream());
  double sum = 0;
  CopyOut(&sum, sums_.data(), sizeof(sum));
  LEPTON_RETURN_IF_ERROR(Synchronize());
  return sum;
}

}  // namespace lepton::kernels::cuda
