#include "scheduler/loop/steady_wall.h"

#include <gtest/gtest.h>

namespace lepton::scheduler {
namespace {

constexpr int64_t kWallMs = 1'700'000'000'000;

// Set back as the test says.
class SetClock final : public Clock {
 public:
  MonotonicTime Now() const override { return MonotonicTime(now); }
  int64_t WallMs() const override { return wall_ms; }
  Duration now{};
  int64_t wall_ms = kWallMs;
};

TEST(SteadyWallTest, FollowsTheSystemsClock) {
  SetClock clock;
  SteadyWall wall(clock);
  EXPECT_EQ(wall.Ms(), kWallMs);
  clock.now += std::chrono::seconds(8);
  clock.wall_ms += 8'000;
  EXPECT_EQ(wall.Ms(), kWallMs + 8'000);
}

TEST(SteadyWallTest, GoesOnFromTheLatestWhereTheClockWasSetBack) {
  SetClock clock;
  SteadyWall wall(clock);
  EXPECT_EQ(wall.Ms(), kWallMs);
  clock.wall_ms -= 3'600'000;
  clock.now += std::chrono::seconds(8);
  EXPECT_EQ(wall.Ms(), kWallMs + 7'000);
  clock.now += std::chrono::seconds(8);
  EXPECT_EQ(wall.Ms(), kWallMs + 14'000);
}

// What waits is not late for that.
TEST(SteadyWallTest, AClockThatIsSetForwardIsFollowedSlowly) {
  SetClock clock;
  SteadyWall wall(clock);
  EXPECT_EQ(wall.Ms(), kWallMs);
  clock.wall_ms += 3'600'000;
  EXPECT_EQ(wall.Ms(), kWallMs);
  clock.now += std::chrono::seconds(8);
  clock.wall_ms += 8'000;
  EXPECT_EQ(wall.Ms(), kWallMs + 9'000);
  // And at once where nothing waits.
  wall.CatchUp();
  EXPECT_EQ(wall.Ms(), kWallMs + 3'608'000);
  wall.CatchUp();
  EXPECT_EQ(wall.Ms(), kWallMs + 3'608'000);
}

TEST(SteadyWallTest, AClockThatIsSetForwardIsNotOvertaken) {
  SetClock clock;
  SteadyWall wall(clock);
  EXPECT_EQ(wall.Ms(), kWallMs);
  clock.now += std::chrono::seconds(40);  // nobody asked, for so long
  clock.wall_ms += 40'200;
  EXPECT_EQ(wall.Ms(), kWallMs + 40'200);
}

TEST(SteadyWallTest, TheSystemsClockIsAdjustedALittleAllTheTime) {
  SetClock clock;
  SteadyWall wall(clock);
  EXPECT_EQ(wall.Ms(), kWallMs);
  for (int i = 1; i <= 100; ++i) {
    clock.now += std::chrono::milliseconds(7);
    clock.wall_ms += 8;
    EXPECT_EQ(wall.Ms(), kWallMs + 8 * i);
  }
}

// The monotonic clock counts from the machine's start, which says nothing about what was seen.
TEST(SteadyWallTest, AMachineThatHasRunForLongDoesNotThrowTimeForward) {
  SetClock clock;
  clock.now = std::chrono::hours(40 * 24);
  SteadyWall wall(clock);
  wall.Seen(kWallMs - 5'000);
  EXPECT_EQ(wall.Ms(), kWallMs);
  SteadyWall set_back(clock);
  set_back.Seen(kWallMs + 5'000);
  EXPECT_EQ(set_back.Ms(), kWallMs + 5'000);
}

}  // namespace
}  // namespace lepton::scheduler
