// The kernels of transformers, in tiles or rows over threads; cut by shape alone.
#pragma once

#include <memory>

#include "runtime/graph/kernel_table.h"

namespace lepton::kernels::transformer {

// Keeps the table of sines and cosines, unless they come as angles.
std::unique_ptr<graph::Kernel> CreateRope(const graph::KernelRequest& request);
std::unique_ptr<graph::Kernel> CreateRopeAngles(const graph::KernelRequest& request);

}  // namespace lepton::kernels::transformer
