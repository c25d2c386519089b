// The size that steps are shortest with is found, and ranks that see the same agree.
#include "worker/train/bucket_tuner.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>

namespace lepton::worker {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kModel = 64 * kMiB;

struct Found {
  int64_t bytes = 0;
  int steps = 0;  // until it was done
};

// `seconds`: of a step (its number) with buckets of so many bytes.
Found Tune(BucketTuner& tuner, const std::function<double(int64_t, int)>& seconds) {
  double before = 1000;  // of whatever was before
  int step = 0;
  for (; step < 100 && !tuner.done(); ++step) {
    const double now = seconds(tuner.bytes(), step);
    tuner.Took(before);
    before = now;
  }
  return {tuner.bytes(), step};
}

// A step with hand-overs that cost `each` seconds and 1 ns for each byte that is left at the end.
std::function<double(int64_t, int)> Cost(double each) {
  return [each](int64_t bytes, int) {
    const double buckets = std::ceil(static_cast<double>(kModel) / static_cast<double>(bytes));
    return 0.1 + each * buckets + 1e-9 * static_cast<double>(bytes);
  };
}

TEST(BucketTuner, FindsTheSizeWithTheShortestSteps) {
  for (const double each : {1e-6, 1e-5, 1e-3, 5e-3, 1.0}) {
    BucketTuner tuner(kModel);
    const auto cost = Cost(each);
    double best = std::numeric_limits<double>::infinity();
    for (int64_t bytes = BucketTuner::kLeast; bytes <= kModel; bytes *= 4) {
      best = std::min(best, cost(bytes, 0));
    }
    const Found found = Tune(tuner, cost);
    EXPECT_LE(cost(found.bytes, 0), best / BucketTuner::kGain) << each;
    EXPECT_LE(found.steps, 25) << each;
  }
  BucketTuner cheap(kModel), dear(kModel);
  const auto small = [](int64_t bytes, int) { return 1 + 1e-7 * static_cast<double>(bytes); };
  EXPECT_EQ(Tune(cheap, small).bytes, BucketTuner::kLeast);
  EXPECT_GE(Tune(dear, Cost(1.0)).bytes, kModel);
}

TEST(BucketTuner, StaysWhereNothingIsGained) {
  BucketTuner tuner(kModel);
  // Noise of 1%, otherwise equal.
  const Found found =
      Tune(tuner, [](int64_t, int step) { return 1 + 0.01 * ((step * 7919) % 11) / 11.0; });
  EXPECT_EQ(found.bytes, BucketTuner::kFirst);
}

TEST(BucketTuner, OneSlowStepDoesNotDecide) {
  for (int slow = 0; slow < 15; ++slow) {
    BucketTuner tuner(kModel);
    const auto cost = Cost(5e-3);
    BucketTuner undisturbed(kModel);
    EXPECT_EQ(
        Tune(tuner, [&](int64_t bytes, int step) { return step == slow ? 10 : cost(bytes, step); })
            .bytes,
        Tune(undisturbed, cost).bytes)
        << slow;
  }
}

TEST(BucketTuner, DoesNotMeasureWhatFitsIntoTheLeast) {
  EXPECT_TRUE(BucketTuner(BucketTuner::kLeast).done());
  EXPECT_FALSE(BucketTuner(BucketTuner::kLeast + 4).done());
}

TEST(BucketTuner, BeginsAnewInANewGroup) {
  BucketTuner tuner(kModel);
  EXPECT_GE(Tune(tuner, Cost(1.0)).bytes, kModel);
  tuner.Restart();
  EXPECT_FALSE(tuner.done());
  EXPECT_EQ(tuner.bytes(), BucketTuner::kFirst);
  EXPECT_LE(Tune(tuner, Cost(0)).bytes, BucketTuner::kFirst);
}

}  // namespace
}  // namespace lepton::worker
