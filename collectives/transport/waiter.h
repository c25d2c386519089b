// How one rank waits for its peers: a bounded spin, then sleep at its bell (shared memory) or in
// poll(2), never past the deadline, a failure of the group or a peer's goodbye.
//
// Spinning is worth while only when every local rank has a core of its own; with more ranks than
// cores it keeps the awaited rank from running. There the waiter yields, which takes a microsecond
// where the others wait as well, and no waker has to wake anybody; the first yield that somebody
// with work took a time slice of is the last (Yields). Threads: one waiting thread at a time. The
// bell (may be null) outlives the waiter.
#pragma once

#include <poll.h>

#include <functional>
#include <vector>

#include "collectives/failure.h"
#include "collectives/transport/shared_segment.h"
#include "runtime/base/clock.h"
#include "runtime/base/status.h"

namespace lepton::collectives {

inline void CpuRelax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Whether these ranks of this host, given by their processes, have a core each: they may be bound
// to different ones, so what one of them may run on says little.
bool HaveCoresOfTheirOwn(const std::vector<int>& pids);

// How often one wait may give its core away before it sleeps. Threads: one.
class Yields {
 public:
  explicit Yields(Duration budget) : left_(budget) {}
  // Yields, or returns false: a yield took so long that somebody computes on this core, or the
  // budget is spent.
  bool Again();

 private:
  Duration left_;
};

class Waiter {
 public:
  // `roomy`: spinning takes no core from a local rank. `blind`: Until looks for ready() for ever
  // and for nothing else, neither deaths nor deadlines: what bench/promises_bench.cc compares with.
  Waiter(const Failure& failure, Bell* bell, bool roomy, bool blind = false);

  // Returns OK once ready() is true: a cheap look at shared memory that the peer changes before it
  // rings our bell. The group's failure; kUnavailable when `peer` left without making it ready;
  // kDeadlineExceeded.
  template <typename Ready>
  Status Until(const Ready& ready, int peer, Deadline deadline) const {
    for (int i = 0; i < spins_; ++i) {
      if (ready()) return {};
      // At first without a pause, which may take as long as a cache line's way from core to core.
      if (i >= kEagerLooks) CpuRelax();
    }
    return blind_ ? BlindUntil(ready) : SlowUntil(ready, peer, deadline);
  }

  // Sleeps once, until any of `fds` has news, the bell rings (when `use_bell`) or a short while has
  // passed; `moved` is called after the bell is armed and cancels the sleep when it returns true.
  void SleepOnce(std::vector<pollfd>& fds, bool use_bell, const std::function<bool()>& moved,
                 Deadline deadline) const;

  // A patient waiter sleeps at once: another thread of this process has better use for the core.
  void SetPatient(bool patient);
  int spins() const { return spins_; }
  Yields yields() const { return Yields(yields_); }

 private:
  static constexpr int kEagerLooks = 64;
  Status SlowUntil(const std::function<bool()>& ready, int peer, Deadline deadline) const;
  Status BlindUntil(const std::function<bool()>& ready) const;
  void FutexSleep(uint32_t rings, Duration at_most) const;

  const Failure& failure_;
  Bell* bell_;
  bool roomy_;
  bool blind_;
  int spins_;
  Duration yields_;
};

}  // namespace lepton::collectives
