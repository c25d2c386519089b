// Copies spread over threads: every element of an output has one writer, or one order of additions.
#pragma once

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels::shape {

void Transpose(const graph::KernelContext& context);  // f32, i32, bf16
void Slice(const graph::KernelContext& context);      // f32, i32, bf16
void SliceGrad(const graph::KernelContext& context);  // f32
void Gather(const graph::KernelContext& context);     // f32, i32, bf16
void GatherGrad(const graph::KernelContext& context);

}  // namespace lepton::kernels::shape
