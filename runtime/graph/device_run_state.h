// The keys of a run's random numbers as an accelerator's kernels read them: from its memory, so
// that recorded work (plan.h) draws other numbers each time. Threads: plain values.
#pragma once

#include <cstdint>

namespace lepton::graph {

struct DeviceRunState {
  uint64_t seed = 0;
  uint64_t step = 0;
  uint64_t shard = 0;
};

}  // namespace lepton::graph
