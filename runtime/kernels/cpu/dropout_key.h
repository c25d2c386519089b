// Where dropout's random numbers come from. Threads: a pure function.
#pragma once

#include "runtime/graph/kernel_table.h"
#include "runtime/tensor/counter_random.h"

namespace lepton::kernels {

// `stream`: of the layer.
inline RandomKey DropoutKey(const graph::RunState& run, uint32_t stream) {
  return {run.seed, stream, run.step, run.shard};
}

}  // namespace lepton::kernels
