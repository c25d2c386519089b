// Element-wise ops over inputs of different shapes, in f32 arithmetic, row by row over threads.
#pragma once

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels::broadcast {

void Add(const graph::KernelContext& context);
void Sub(const graph::KernelContext& context);
void Mul(const graph::KernelContext& context);
void Div(const graph::KernelContext& context);
void BroadcastTo(const graph::KernelContext& context);

// sum_to over leading axes only: the target's shape, without leading ones, ends the input's.
bool CanSumLeadingAxes(const graph::KernelRequest& request);
void SumLeadingAxes(const graph::KernelContext& context);

}  // namespace lepton::kernels::broadcast
