// How much of what jobs said is kept; see history.h for what goes first.
#pragma once

#include <chrono>
#include <cstdint>

#include "runtime/base/clock.h"

namespace lepton::scheduler {

// 0: no limit. Trimming of bytes goes down to seven eighths of a limit, so that it is rare.
struct HistoryLimits {
  uint64_t log_bytes_per_job = uint64_t{64} << 20;
  uint64_t metric_bytes_per_job = uint64_t{16} << 20;
  uint64_t total_bytes = uint64_t{4} << 30;
  size_t jobs = 10'000;  // finished ones; with one that goes goes what it said
  Duration max_age = std::chrono::hours(24 * 30);
};

}  // namespace lepton::scheduler
