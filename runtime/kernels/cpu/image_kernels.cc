#include "runtime/kernels/cpu/image_kernels.h"

#include <algorithm>

#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/kernels/cpu/function_kernel.h"
#include "runtime/kernels/cpu/norm/batch_norm_kernels.h"

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

template <RangeFunction function, int64_t (*count)(const KernelContext&)>
void AppendReference(std::string_view op, std::vector<graph::KernelEntry>& entries, DType dtype) {
  entries.push_back(
      {op, dtype, "reference", &Always, &FunctionKernel<OnOne<function, count>>::Create});
}

template <RangeFunction function, int64_t (*count)(const KernelContext&)>
void Append(std::string_view op, std::vector<graph::KernelEntry>& entries) {
  entries.push_back(
      {op, DType::kF32, "threaded", &Always, &FunctionKernel<OnThreads<function, count>>::Create});
  AppendReference<function, count>(op, entries, DType::kF32);
}

}  // namespace

std::vector<graph::KernelEntry> ImageKernels() {
  std::vector<graph::KernelEntry> entries;
  Append<&AveragePool, &Planes>("average_pool2d", entries);
  Append<&AveragePoolGrad, &Planes>("average_pool2d_grad", entries);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (graph::KernelEntry& entry : norm::BatchNormKernels(dtype)) entries.push_back(entry);
    AppendReference<&BatchNorm, &Channels>("batch_norm", entries, dtype);
    AppendReference<&BatchNormApply, &Channels>("batch_norm_apply", entries, dtype);
    AppendReference<&BatchNormGrad, &Channels>("batch_norm_grad", entries, dtype);
  }
  Append<&MaxPool, &Planes>("max_pool2d", entries);
  Append<&MaxPoolGrad, &Planes>("max_pool2d_grad", entries);
  return entries;
}

}  // namespace lepton::kernels::image
