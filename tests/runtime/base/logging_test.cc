#include "runtime/base/logging.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lepton {
namespace {

TEST(Logging, OneLineFormatOnAllProcesses) {
  InitLogging({.role = "worker"});
  ::testing::internal::CaptureStderr();
  LOG(WARNING) << "lease is late";
  InitLogging({.role = "worker", .min_level = 1});
  LOG(INFO) << "below the level";
  const std::string text = ::testing::internal::GetCapturedStderr();
  EXPECT_THAT(text, ::testing::MatchesRegex(
                        "W [0-9-]+T[0-9:.]+Z worker\\[[0-9]+\\] logging_test.cc:[0-9]+\\] "
                        "lease is late\n"));
}

}  // namespace
}  // namespace lepton
