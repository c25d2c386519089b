// What is computing, and what waits.
#include "runtime/base/progress.h"

#include <gtest/gtest.h>

namespace lepton::progress {
namespace {

TEST(Progress, AWaitWithinWorkIsNoWork) {
  EXPECT_FALSE(Now().computing);
  {
    const Computing computing("step", 17);
    const Look before = Now();
    EXPECT_TRUE(before.computing);
    EXPECT_EQ(before.doing, "step 17");
    {
      const Waiting waiting;
      EXPECT_FALSE(Now().computing);
      EXPECT_EQ(Now().ticks, before.ticks) << "who waits does not move";
    }
    EXPECT_TRUE(Now().computing);
    EXPECT_EQ(Now().doing, "step 17");
    EXPECT_GT(Now().ticks, before.ticks) << "the time that it waited counts as no pause";
  }
  EXPECT_FALSE(Now().computing);
}

TEST(Progress, AWaitBesideWorkLeavesItSo) {
  { const Waiting waiting; }
  EXPECT_FALSE(Now().computing);
}

}  // namespace
}  // namespace lepton::progress
