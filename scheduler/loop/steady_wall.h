// Wall time as decisions want it: it neither goes back nor stands still nor leaps, whatever is done
// to the system's clock. Where that was set back, time goes on from the latest that was seen, a
// little slower than it should, until the clock has caught up. Where it was set forward, time goes
// a little faster until it has caught up: time-outs are measured in it, and nobody is late for
// that. Threads: one.
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
  // No time-out is pending: what the clock was set forward by is made up for at once.
  void CatchUp();

 private:
  void Follow(bool leap);

  const Clock& clock_;
  std::optional<MonotonicTime> at_;  // when it was last followed
  Duration offset_{};                // of this time, from the monotonic clock's
};

}  // namespace lepton::scheduler
