// What a rank's communicator is doing, for its watcher to tell the peers: how many operations of
// all ranks it has begun, and since when the one that runs does. That its bytes move counts for all
// communicators of the process: a rank that is late to one group may be busy in another. Threads:
// Enter and Leave by the one that runs the operations, the rest any.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>

#include "runtime/base/clock.h"
#include "runtime/base/progress.h"

namespace lepton::collectives {

class Activity {
 public:
  void Enter(bool all_ranks, MonotonicTime now) {
    since_ns_.store(now.time_since_epoch().count(), std::memory_order_relaxed);
    // One thread at a time writes: no need for a locked addition.
    if (all_ranks) begun_.store(begun() + 1, std::memory_order_relaxed);
  }
  void Leave() { since_ns_.store(0, std::memory_order_relaxed); }
  static void Moved() { progress::Moved(); }

  uint64_t begun() const { return begun_.load(std::memory_order_relaxed); }
  // When the operation that runs began; none runs: empty.
  std::optional<MonotonicTime> since() const {
    const int64_t ns = since_ns_.load(std::memory_order_relaxed);
    if (ns == 0) return std::nullopt;
    return MonotonicTime(Duration(ns));
  }

 private:
  std::atomic<uint64_t> begun_{0};
  std::atomic<int64_t> since_ns_{0};
};

}  // namespace lepton::collectives
