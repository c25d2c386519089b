// Pools and batch normalisation. A pool works plane by plane, a normalisation channel by channel,
// with sums in double: spreading planes or channels over threads changes no bits. So each is one
// loop, run on one thread as the reference and on all as the threaded kernel; that of batch
// normalisation is norm/batch_norm_kernels.h's.
#pragma once

#include <vector>

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels::image {

// Each computes planes, or channels, [begin, end).
void MaxPool(const graph::KernelContext& context, int64_t begin, int64_t end);
void MaxPoolGrad(const graph::KernelContext& context, int64_t begin, int64_t end);
void AveragePool(const graph::KernelContext& context, int64_t begin, int64_t end);
void AveragePoolGrad(const graph::KernelContext& context, int64_t begin, int64_t end);
void BatchNorm(const graph::KernelContext& context, int64_t begin, int64_t end);
void BatchNormApply(const graph::KernelContext& context, int64_t begin, int64_t end);
void BatchNormGrad(const graph::KernelContext& context, int64_t begin, int64_t end);

// Per op, threaded and then the reference.
std::vector<graph::KernelEntry> ImageKernels();

}  // namespace lepton::kernels::image
