#include "scheduler/loop/steady_wall.h"

#include <algorithm>

namespace lepton::scheduler {
namespace {

using std::chrono::milliseconds;

// Of the time that passes: by so much it goes slower or faster where the clock was set.
constexpr int kShare = 8;
// A clock that is kept right, and read a moment later than the other, is followed at once.
constexpr Duration kSmall = milliseconds(100);

}  // namespace

void SteadyWall::Follow(bool leap) {
  const MonotonicTime now = clock_.Now();
  const Duration wanted = milliseconds(clock_.WallMs()) - now.time_since_epoch();
  const Duration most = at_ ? (now - *at_) / kShare : Duration::zero();
  if (!at_ || leap) {
    offset_ = at_ ? std::max(offset_, wanted) : wanted;
  } else if (wanted < offset_) {
    offset_ -= std::min(offset_ - wanted, most);
  } else {
    offset_ += wanted - offset_ <= kSmall ? wanted - offset_ : std::min(wanted - offset_, most);
  }
  at_ = now;
}

int64_t SteadyWall::Ms() {
  Follow(/*leap=*/false);
  return std::chrono::floor<milliseconds>(at_->time_since_epoch() + offset_).count();
}

void SteadyWall::Seen(int64_t wall_ms) {
  Follow(/*leap=*/false);
  offset_ = std::max<Duration>(offset_, milliseconds(wall_ms) - at_->time_since_epoch());
}

void SteadyWall::CatchUp() {
  Follow(/*leap=*/true);
}

}  // namespace lepton::scheduler
