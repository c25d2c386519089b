// The kernels of runtime/ops/general, for the CPU: loops over threads, the same for every
// type, and of the moves of runtime/ops for the types that training does not have.
// Threads: functions of their arguments.
#pragma once

#include <vector>

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels::general {

using graph::KernelContext;

// One entry per op and element type, all "reference".
std::vector<graph::KernelEntry> GeneralKernels();

void UnaryMath(const KernelContext& context);
void BinaryMath(const KernelContext& context);
void Select(const KernelContext& context);
void Convert(const KernelContext& context);
void Strided(const KernelContext& context);
void Constant(const KernelContext& context);
void IndexRange(const KernelContext& context);
void Repeat(const KernelContext& context);
void TransposeAny(const KernelContext& context);
void SliceAny(const KernelContext& context);
void PadConstant(const KernelContext& context);
void Join(const KernelContext& context);
void ReduceAxes(const KernelContext& context);
void ArgExtreme(const KernelContext& context);
void CumulativeSum(const KernelContext& context);
void TopK(const KernelContext& context);
void GeneralMatmul(const KernelContext& context);
void Take(const KernelContext& context);
void GatherElements(const KernelContext& context);
void ScatterElements(const KernelContext& context);
void GatherNd(const KernelContext& context);
void ScatterNd(const KernelContext& context);

}  // namespace lepton::kernels::general
