#include "runtime/base/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <vector>

namespace lepton {
namespace {

class ThreadPoolTest : public ::testing::TestWithParam<int> {};

TEST_P(ThreadPoolTest, ParallelForCoversEveryIndexOnce) {
  ThreadPool pool(GetParam());
  for (const int64_t count : {0, 1, 7, 1000}) {
    for (const int64_t grain : {1, 3, 5000}) {
      std::vector<std::atomic<int>> seen(static_cast<size_t>(count));
      pool.ParallelFor(count, grain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) seen[static_cast<size_t>(i)]++;
      });
      for (const auto& times : seen) EXPECT_EQ(times.load(), 1);
    }
  }
}

TEST_P(ThreadPoolTest, ANestedLoopRunsOnItsCaller) {
  ThreadPool pool(GetParam());
  std::atomic<int64_t> total{0};
  pool.ParallelFor(8, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      pool.ParallelFor(100, 1, [&](int64_t b, int64_t e) { total += e - b; });
    }
  });
  EXPECT_EQ(total.load(), 800);
}

TEST_P(ThreadPoolTest, LoopsFromSeveralThreadsDoNotDisturbEachOther) {
  ThreadPool pool(GetParam());
  std::vector<std::future<int64_t>> sums;
  for (int t = 0; t < 4; ++t) {
    sums.push_back(std::async(std::launch::async, [&] {
      int64_t result = 0;
      for (int round = 0; round < 50; ++round) {
        std::atomic<int64_t> sum{0};
        pool.ParallelFor(1000, 10, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) sum += i;
        });
        result += sum;
      }
      return result;
    }));
  }
  for (auto& sum : sums) EXPECT_EQ(sum.get(), 50 * 499500);
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, ::testing::Values(1, 2, 4));

}  // namespace
}  // namespace lepton
