#include "runtime/base/clock.h"

#include <algorithm>
#include <cstdio>
#include <ctime>

namespace lepton {
namespace {
class SystemClock final : public Clock {
 public:
  MonotonicTime Now() const override {
    return std::chrono::time_point_cast<Duration>(std::chrono::steady_clock::now());
  }
  int64_t WallMs() const override {
    return std::chrono::duration_cast<std::chrono::milliseconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
  }
};
}  // namespace

Clock& RealClock() {
  static SystemClock clock;
  return clock;
}

Duration Deadline::Left() const {
  constexpr Duration kYear = std::chrono::hours(24 * 365);
  if (at_ == MonotonicTime::max()) return kYear;
  return std::clamp<Duration>(at_ - RealClock().Now(), Duration::zero(), kYear);
}

int Deadline::LeftMs(int cap) const {
  const int64_t ms = (Left().count() + 999'999) / 1'000'000;
  return static_cast<int>(std::min<int64_t>(ms, cap));
}

std::string_view FormatWallMs(int64_t wall_ms, char (&buffer)[32]) {
  const time_t seconds = static_cast<time_t>(wall_ms / 1000);
  tm parts{};
  gmtime_r(&seconds, &parts);
  const size_t n = std::strftime(buffer, sizeof(buffer), "%Y-%m-%dT%H:%M:%S", &parts);
  const int m =
      std::snprintf(buffer + n, sizeof(buffer) - n, ".%03dZ", static_cast<int>(wall_ms % 1000));
  return {buffer, n + static_cast<size_t>(m)};
}

}  // namespace lepton
