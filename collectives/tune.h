// Measures every all-reduce of algorithm_list.cc on this machine, over sizes, transports and
// numbers of ranks, each rank a process of its own, and makes the table of the fastest. Threads:
// call from a process without other threads: it forks.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "collectives/tuning_table.h"
#include "runtime/base/clock.h"

namespace lepton::collectives {

struct TuneOptions {
  std::vector<int> ranks = {2, 4};
  std::vector<size_t> bytes = {8,        64,       512,       4 << 10, 8 << 10, 16 << 10,
                               32 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20};
  Duration each = std::chrono::milliseconds(20);  // so long a measurement of one of them takes
  // A line of progress; may be empty.
  std::function<void(const std::string&)> progress;
};

// kAborted and the like when a rank fails; kDeadlineExceeded when ranks do not answer.
Result<TuningTable> Tune(const TuneOptions& options);

}  // namespace lepton::collectives
