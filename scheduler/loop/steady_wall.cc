#include "scheduler/loop/steady_wall.h"

#include <algorithm>

namespace lepton::scheduler {
namespace {

constexpr int64_t kNsPerMs = 1'000'000;

}  // namespace

int64_t SteadyWall::Ms() {
  const MonotonicTime now = clock_.Now();
  if (at_) latest_ns_ += (now - *at_).count() / 8 * 7;
  at_ = now;
  Seen(clock_.WallMs());
  return latest_ns_ / kNsPerMs;
}

void SteadyWall::Seen(int64_t wall_ms) {
  latest_ns_ = std::max(latest_ns_, wall_ms * kNsPerMs);
}

}  // namespace lepton::scheduler
