// Matrix products through oneDNN. The result is cut into tiles by its shape alone, and each tile is
// computed by a single-threaded primitive, so the bits do not depend on the number of threads and
// oneDNN's own OpenMP threads are never started: tiles are spread over ThreadPool::Compute().
#pragma once

#include <memory>

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels {

// f32 and bf16. False when oneDNN has only its plain reference for the shapes and this CPU (bf16
// before AVX-512).
bool CanRunOnednnMatmul(const graph::KernelRequest& request);
std::unique_ptr<graph::Kernel> CreateOnednnMatmul(const graph::KernelRequest& request);

// bf16 on CPUs where oneDNN cannot: the inputs are widened to f32, which is exact, and multiplied
// there.
bool CanRunWidenedMatmul(const graph::KernelRequest& request);
std::unique_ptr<graph::Kernel> CreateWidenedMatmul(const graph::KernelRequest& request);

}  // namespace lepton::kernels
