#include "runtime/kernels/cpu/image_kernels.h"

#include <algorithm>

#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/kernels/cpu/function_kernel.h"

namespace lepton::kernels::image {
namespace {

using RangeFunction = void (*)(const KernelContext&, int64_t, int64_t);

int64_t Planes(const KernelContext& context) {
  const Shape& shape = context.input(0).shape();
  return shape[0] * shape[1];
}

int64_t Channels(const KernelContext& context) {
  return context.input(0).shape()[1];
}

template <RangeFunction function, int64_t (*count)(const KernelContext&)>
void OnThreads(const KernelContext& context) {
  constexpr int64_t kGrain = 1 << 14;  // elements for which another thread is worth waking
  const int64_t pieces = count(context);
  const int64_t elements = std::max<int64_t>(1, context.input(0).elements() / pieces);
  ComputeLoop(pieces, std::max<int64_t>(1, kGrain / elements),
              [&](int64_t begin, int64_t end) { function(context, begin, end); });
}

template <RangeFunction function, int64_t (*count)(const KernelContext&)>
void OnOne(const KernelContext& context) {
  const FlushDenormals flush;
  function(context, 0, count(context));
}

template <RangeFunction function, int64_t (*count)(const KernelContext&),
          RangeFunction fast = function>
void Append(std::string_view op, std::vector<graph::KernelEntry>& entries,
            DType dtype = DType::kF32) {
  entries.push_back(
      {op, dtype, "threaded", &Always, &FunctionKernel<OnThreads<fast, count>>::Create});
  entries.push_back(
      {op, dtype, "reference", &Always, &FunctionKernel<OnOne<function, count>>::Create});
}

}  // namespace

std::vector<graph::KernelEntry> ImageKernels() {
  std::vector<graph::KernelEntry> entries;
  Append<&AveragePool, &Planes>("average_pool2d", entries);
  Append<&AveragePoolGrad, &Planes>("average_pool2d_grad", entries);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    Append<&BatchNorm, &Channels, &VectorBatchNorm>("batch_norm", entries, dtype);
    Append<&BatchNormGrad, &Channels, &VectorBatchNormGrad>("batch_norm_grad", entries, dtype);
  }
  Append<&MaxPool, &Planes>("max_pool2d", entries);
  Append<&MaxPoolGrad, &Planes>("max_pool2d_grad", entries);
  return entries;
}

}  // namespace lepton::kernels::image
