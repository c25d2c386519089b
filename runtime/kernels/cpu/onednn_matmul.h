// Matrix products through oneDNN. The result is cut into tiles by its shape alone, and each tile is
// computed by a single-threaded primitive, so the bits do not depend on the number of threads and
// oneDNN's own OpenMP threads are never started: tiles are spread over ThreadPool::Compute().
#pragma once

#include <memory>

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels {

// Whether oneDNN has more than its plain reference for the shapes, type (f32 or bf16) and this CPU.
bool CanRunOnednnMatmul(const graph::KernelRequest& request);
// The same, for bf16 only with AMX: the vector units of a CPU without it multiply bf16 more slowly
// than f32.
bool PrefersOnednnMatmul(const graph::KernelRequest& request);
// Packs frozen weights, where that helps, in Prepare.
std::unique_ptr<graph::Kernel> CreateOnednnMatmul(const graph::KernelRequest& request);

// bf16 elsewhere: the inputs are widened to f32, which is exact, and multiplied there.
bool CanRunWidenedMatmul(const graph::KernelRequest& request);
std::unique_ptr<graph::Kernel> CreateWidenedMatmul(const graph::KernelRequest& request);

}  // namespace lepton::kernels
