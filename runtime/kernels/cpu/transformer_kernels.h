// The kernels of transformers, in tiles or rows over threads; cut by shape alone.
#pragma once

#include <memory>

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels::transformer {

// Per (image, head, tile of queries), over tiles of keys with a running maximum and sum.
void Attention(const graph::KernelContext& context);
// Per (image, key head): all its queries in order, so that dk and dv add up in one order.
void AttentionGrad(const graph::KernelContext& context);

void RmsNorm(const graph::KernelContext& context);
void RmsNormGrad(const graph::KernelContext& context);

// Keeps the table of sines and cosines.
std::unique_ptr<graph::Kernel> CreateRope(const graph::KernelRequest& request);

}  // namespace lepton::kernels::transformer
