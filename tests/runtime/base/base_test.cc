// Status, ids, clock, hash: small value types.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <string>
#include <vector>

#include "runtime/base/clock.h"
#include "runtime/base/hash.h"
#include "runtime/base/ids.h"
#include "runtime/base/metrics.h"
#include "runtime/base/status.h"

namespace lepton {
namespace {

using ::testing::HasSubstr;

TEST(Status, CarriesCodeMessageAndContext) {
  const Status status = ResourceExhausted("no space left").WithContext("objects/ab");
  EXPECT_EQ(status.ToString(), "RESOURCE_EXHAUSTED: objects/ab: no space left");
  EXPECT_EQ(Status::Ok().WithContext("x"), Status::Ok());
}

TEST(Status, NamesSurviveTheRoundTrip) {
  for (int code = 0; code <= static_cast<int>(StatusCode::kInternal); ++code) {
    EXPECT_EQ(StatusCodeFromName(StatusCodeName(static_cast<StatusCode>(code))),
              static_cast<StatusCode>(code));
  }
  EXPECT_EQ(StatusCodeFromName("NO_SUCH"), StatusCode::kInternal);
}

TEST(Status, ErrnoMapsToWhatTheCallerShouldDo) {
  EXPECT_EQ(ErrnoStatus(ENOENT, "x").code(), StatusCode::kNotFound);
  EXPECT_EQ(ErrnoStatus(ENOSPC, "x").code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrnoStatus(EROFS, "x").code(), StatusCode::kPermissionDenied);
  EXPECT_EQ(ErrnoStatus(ECONNREFUSED, "x").code(), StatusCode::kUnavailable);
}

Result<int> Half(int value) {
  if (value % 2 != 0) return InvalidArgument("odd");
  return value / 2;
}
Result<int> Quarter(int value) {
  LEPTON_ASSIGN_OR_RETURN(const int half, Half(value));
  return Half(half);
}

TEST(Result, PropagatesTheFirstError) {
  EXPECT_EQ(*Quarter(12), 3);
  EXPECT_EQ(Quarter(6).status().message(), "odd");
  EXPECT_EQ(Quarter(6).value_or(-1), -1);
}

TEST(ResultDeathTest, ValueOfAnErrorEndsTheProcessWithTheReason) {
  EXPECT_DEATH({ [[maybe_unused]] int x = Half(3).value(); }, "odd");
}

TEST(CheckName, AcceptsNamesAndRefusesTheRest) {
  for (const char* good : {"a", "digits-mlp", "0.x_Y", "j17"}) {
    EXPECT_TRUE(CheckName("name", good).ok()) << good;
  }
  const std::vector<std::string> refused = {
      "", "-a", ".", "a/b", "a b", "\xc3\xa9", std::string(64, 'a')};
  for (const std::string& bad : refused) {
    EXPECT_THAT(CheckName("name", bad).message(), HasSubstr("name: '")) << bad;
  }
}

TEST(Clock, ManualClockMovesOnlyWhenTold) {
  ManualClock clock(1000);
  const MonotonicTime before = clock.Now();
  clock.Advance(std::chrono::milliseconds(1500));
  EXPECT_EQ(clock.Now() - before, std::chrono::milliseconds(1500));
  EXPECT_EQ(clock.WallMs(), 2500);
}

TEST(Clock, FormatsTimesInUtc) {
  char buffer[32];
  EXPECT_EQ(FormatWallMs(0, buffer), "1970-01-01T00:00:00.000Z");
  EXPECT_EQ(FormatWallMs(1'763'715'600'042, buffer), "2025-11-21T09:00:00.042Z");
}

TEST(Deadline, KnowsWhatIsLeft) {
  EXPECT_TRUE(Deadline::In(Duration::zero()).Expired());
  EXPECT_EQ(Deadline::In(-std::chrono::seconds(1)).Left(), Duration::zero());
  EXPECT_GT(Deadline::In(std::chrono::hours(1)).LeftMs(), 3'590'000);
  EXPECT_EQ(Deadline::In(std::chrono::hours(1)).LeftMs(100), 100);
  EXPECT_FALSE(Deadline::Never().Expired());
}

TEST(Sha256, MatchesTheStandardsVectors) {
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  Sha256 pieces;
  pieces.Update("a");
  pieces.Update("bc");
  EXPECT_EQ(pieces.FinalHex(), Sha256Hex("abc"));
}

TEST(Random, GivesFreshBytes) {
  EXPECT_EQ(RandomHex(16).size(), 32u);
  EXPECT_NE(RandomHex(16), RandomHex(16));
}

TEST(Metrics, OneSeriesPerNameAndLabels) {
  metrics::Counter("lepton_test_total", "help", {{"kind", "a"}}).Increment();
  metrics::Counter("lepton_test_total", "help", {{"kind", "a"}}).Increment();
  metrics::Counter("lepton_test_total", "help", {{"kind", "b"}}).Increment();
  metrics::Histogram("lepton_test_seconds", "help").Observe(0.003);
  const std::string text = metrics::Expose();
  EXPECT_THAT(text, HasSubstr("lepton_test_total{kind=\"a\"} 2"));
  EXPECT_THAT(text, HasSubstr("lepton_test_total{kind=\"b\"} 1"));
  EXPECT_THAT(text, HasSubstr("lepton_test_seconds_bucket{le=\"0.005\"} 1"));
}

}  // namespace
}  // namespace lepton
