#include "worker/data/batch_feeder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>

namespace lepton::worker {
namespace {

using ::testing::HasSubstr;
const nn::Signature kSignature = nn::Signature::Features(1, 1);

// Example i is the number i, in epoch e 1000 e + i; filling may take a while or fail.
class SlowNumbers final : public Examples {
 public:
  SlowNumbers(int64_t rows, int64_t bytes) : rows_(rows), bytes_(bytes) {}
  int64_t rows() const override { return rows_; }
  int64_t example_bytes() const override { return bytes_; }
  Status Fill(uint64_t epoch, std::span<const int64_t> examples, BatchBuffer& out) const override {
    ++fills;
    if (delay.count() > 0) std::this_thread::sleep_for(delay);
    out.Resize(static_cast<int64_t>(examples.size()));
    float* x = out.Floats("x");
    for (const int64_t example : examples) {
      if (example == bad) return DataLoss("example " + std::to_string(example) + " is gone");
      *x++ = static_cast<float>(1000 * epoch + static_cast<uint64_t>(example));
    }
    return Status::Ok();
  }

  mutable std::atomic<int> fills = 0;
  std::chrono::microseconds delay{0};
  int64_t bad = -1;

 private:
  const int64_t rows_, bytes_;
};

std::vector<float> Values(const BatchBuffer& buffer) {
  if (buffer.rows() == 0) return {};
  const nn::Batch batch = buffer.batch();
  const auto x = batch.inputs[0].span<const float>();
  return {x.begin(), x.end()};
}

constexpr int64_t kLarge = int64_t{1} << 20, kSmall = 4;

TEST(BatchFeeder, GivesTheSameBatchesAheadAsOnDemand) {
  for (const bool slow_reader : {false, true}) {
    std::vector<std::vector<float>> runs[2];
    for (const int64_t bytes : {kSmall, kLarge}) {
      auto numbers = std::make_shared<SlowNumbers>(103, bytes);
      const BatchSource source(numbers, {.batch_size = 20, .shards = 4, .pieces = 2, .seed = 3});
      BatchFeeder feeder(source, kSignature, {4, 20, {{1, 0}, {1, 1}, {2, 0}, {2, 1}}});
      EXPECT_EQ(feeder.has_thread(), bytes == kLarge);
      for (int i = 0; i < 16 * 2 * 2; ++i) {
        const auto batch = feeder.Next();
        ASSERT_TRUE(batch.ok()) << batch.status().ToString();
        if (slow_reader && i % 7 == 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        runs[bytes == kLarge].push_back(Values(**batch));
      }
      EXPECT_EQ(feeder.Next().status().code(), StatusCode::kInternal);
    }
    EXPECT_EQ(runs[0], runs[1]);
  }
}

TEST(BatchFeeder, StartsAtTheStepOfAResumedRun) {
  auto numbers = std::make_shared<SlowNumbers>(50, kLarge);
  const BatchSource source(numbers, {.batch_size = 8, .shards = 2, .seed = 1});
  BatchFeeder whole(source, kSignature, {0, 30, {{0, 0}}}),
      rest(source, kSignature, {17, 30, {{0, 0}}});
  std::vector<float> expected;
  for (int step = 0; step < 18; ++step) expected = Values(**whole.Next());
  EXPECT_EQ(Values(**rest.Next()), expected);
}

TEST(BatchFeeder, WorksAheadButNotFarther) {
  auto numbers = std::make_shared<SlowNumbers>(1000, kLarge);
  const BatchSource source(numbers, {.batch_size = 10});
  BatchFeeder feeder(source, kSignature, {0, 1000, {{0, 0}}});
  const auto full = [&] { return numbers->fills == BatchFeeder::kAhead + 1; };
  for (int wait = 0; wait < 500 && !full(); ++wait) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(numbers->fills, BatchFeeder::kAhead + 1);
}

TEST(BatchFeeder, AnErrorComesWhenItsBatchIsNeeded) {
  for (const int64_t bytes : {kSmall, kLarge}) {
    auto numbers = std::make_shared<SlowNumbers>(40, bytes);
    const BatchSource source(numbers, {.batch_size = 10});
    numbers->bad = source.Rows(2, 0, 0)[4];
    BatchFeeder feeder(source, kSignature, {0, 4, {{0, 0}}});
    EXPECT_TRUE(feeder.Next().ok());
    EXPECT_TRUE(feeder.Next().ok());
    const auto third = feeder.Next();
    EXPECT_EQ(third.status().code(), StatusCode::kDataLoss);
    EXPECT_THAT(third.status().message(), HasSubstr("batch of step 3: example"));
  }
}

TEST(BatchFeeder, EndsAtOnceWhateverItsThreadDoes) {
  auto numbers = std::make_shared<SlowNumbers>(1000, kLarge);
  numbers->delay = std::chrono::microseconds(500);
  const BatchSource source(numbers, {.batch_size = 10});
  for (int round = 0; round < 50; ++round) {
    BatchFeeder feeder(source, kSignature, {0, 1000, {{0, 0}}});
    for (int i = 0; i < round % 9; ++i) ASSERT_TRUE(feeder.Next().ok());
  }
  BatchFeeder nothing(source, kSignature, {0, 1000, {}}),
      over(source, kSignature, {7, 7, {{0, 0}}});
  EXPECT_FALSE(nothing.has_thread());
  EXPECT_FALSE(over.Next().ok());
}

}  // namespace
}  // namespace lepton::worker
