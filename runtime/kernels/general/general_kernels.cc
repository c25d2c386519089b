#include "runtime/kernels/general/general_kernels.h"

#include "runtime/kernels/cpu/function_kernel.h"
#include "runtime/kernels/cpu/reference.h"

namespace lepton::kernels::general {
namespace {

template <void (*function)(const KernelContext&)>
void AddAllTypes(std::string_view op, std::vector<graph::KernelEntry>& entries) {
  for (int i = 0; i < kDTypes; ++i) {
    entries.push_back(
        {op, static_cast<DType>(i), "reference", &Always, &FunctionKernel<function>::Create});
  }
}

}  // namespace

std::vector<graph::KernelEntry> GeneralKernels() {
  std::vector<graph::KernelEntry> entries;
  AddAllTypes<UnaryMath>("unary_math", entries);
  AddAllTypes<BinaryMath>("binary_math", entries);
  AddAllTypes<Select>("select", entries);
  AddAllTypes<Convert>("convert", entries);
  AddAllTypes<Strided>("strided", entries);
  AddAllTypes<PadConstant>("pad_constant", entries);
  AddAllTypes<Join>("join", entries);
  AddAllTypes<ReduceAxes>("reduce_axes", entries);
  AddAllTypes<ArgExtreme>("arg_extreme", entries);
  AddAllTypes<CumulativeSum>("cumulative_sum", entries);
  AddAllTypes<TopK>("top_k", entries);
  AddAllTypes<GeneralMatmul>("general_matmul", entries);
  AddAllTypes<Take>("take", entries);
  AddAllTypes<GatherElements>("gather_elements", entries);
  AddAllTypes<ScatterElements>("scatter_elements", entries);
  AddAllTypes<GatherNd>("gather_nd", entries);
  AddAllTypes<ScatterNd>("scatter_nd", entries);
  AddAllTypes<Constant>("constant", entries);
  AddAllTypes<IndexRange>("index_range", entries);
  AddAllTypes<Repeat>("repeat", entries);
  // After those of kernel_list_cpu.cc, which has them for the types of training.
  AddAllTypes<reference::Reshape>("reshape", entries);
  AddAllTypes<TransposeAny>("transpose", entries);
  AddAllTypes<SliceAny>("slice", entries);
  AddAllTypes<Join>("concat", entries);
  return entries;
}

}  // namespace lepton::kernels::general
