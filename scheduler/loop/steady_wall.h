// Wall time as decisions want it: it neither goes back nor stands still, whatever is done to the
// system's clock. Where that was set back, time goes on from the latest that was seen, a little
// slower than it should, until the clock has caught up.
// Threads: one.
#pragma once

#include <cstdint>
#include <optional>

#include "runtime/base/clock.h"

namespace lepton::scheduler {

class SteadyWall {
 public:
  // The clock must outlive this.
  explicit SteadyWall(const Clock& clock) : clock_(clock) {}

  // Milliseconds since the Unix epoch.
  int64_t Ms();
  // It is at least that late.
  void Seen(int64_t wall_ms);

 private:
  const Clock& clock_;
  std::optional<MonotonicTime> at_;  // when Ms was last asked
  int64_t latest_ns_ = 0;            // since the epoch
};

}  // namespace lepton::scheduler
