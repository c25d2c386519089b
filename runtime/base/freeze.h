// Whether the caller itself stood still: stopped by a signal, in a container that is paused, in a
// job that Slurm suspends, or on a machine too busy to give it a turn. The clock goes on meanwhile,
// so behind it all others seem to have been silent, and none of them could be heard. Who judges
// others by their silence asks this first and, if it is so, begins to count anew.
// (While a whole machine sleeps, the monotonic clock stands still too.)
#pragma once

#include "runtime/base/clock.h"

namespace lepton {

// `due`: when the thread's turn was to come at the latest; `limit`: the silence that it judges by.
// One that waits for no more than a quarter of the limit at a time overlooks no freeze of more than
// half of it.
inline bool WasFrozen(MonotonicTime due, MonotonicTime now, Duration limit) {
  return now - due > limit / 4;
}

}  // namespace lepton
