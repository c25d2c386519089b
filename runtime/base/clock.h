// Time as an input, so that decisions can be tested in virtual time. Monotonic time measures
// durations and deadlines; wall time is for people and records only.
// Threads: every Clock may be used from any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string_view>

namespace lepton {

using Duration = std::chrono::nanoseconds;
using MonotonicTime = std::chrono::time_point<std::chrono::steady_clock, Duration>;

class Clock {
 public:
  virtual ~Clock() = default;
  virtual MonotonicTime Now() const = 0;
  // Milliseconds since the Unix epoch.
  virtual int64_t WallMs() const = 0;
};

// The process's clock; lives for ever.
Clock& RealClock();

// Stands still until told otherwise.
class ManualClock final : public Clock {
 public:
  explicit ManualClock(int64_t wall_ms = 1'700'000'000'000) : start_wall_ms_(wall_ms) {}
  MonotonicTime Now() const override { return MonotonicTime(Duration(now_ns_.load())); }
  int64_t WallMs() const override { return start_wall_ms_ + now_ns_.load() / 1'000'000; }
  void Advance(Duration by) { now_ns_.fetch_add(by.count()); }

 private:
  std::atomic<int64_t> now_ns_{0};
  int64_t start_wall_ms_;
};

// A moment by which a blocking call must return. Copy it down the call tree so that nested waits
// share one budget.
class Deadline {
 public:
  static Deadline In(Duration from_now) { return Deadline(RealClock().Now() + from_now); }
  static Deadline Never() { return Deadline(MonotonicTime::max()); }
  explicit Deadline(MonotonicTime at) : at_(at) {}

  MonotonicTime at() const { return at_; }
  bool Expired() const { return RealClock().Now() >= at_; }
  // Time left, never negative; capped at a year for Never().
  Duration Left() const;
  // For poll(2) and friends: milliseconds left, rounded up, at most `cap`.
  int LeftMs(int cap = 1 << 30) const;

 private:
  MonotonicTime at_;
};

// "2026-11-21T08:59:08.123Z"
std::string_view FormatWallMs(int64_t wall_ms, char (&buffer)[32]);

}  // namespace lepton
