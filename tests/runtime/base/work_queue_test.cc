#include "runtime/base/work_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <latch>
#include <memory>
#include <stdexcept>
#include <vector>

namespace lepton {
namespace {

TEST(WorkQueue, RunsInOrderWhatWasSubmittedBeforeItGoes) {
  std::vector<int> order;
  {
    WorkQueue queue("test", 1);
    for (int i = 0; i < 100; ++i) queue.Submit([&order, i] { order.push_back(i); });
  }
  ASSERT_EQ(order.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
}

// Each waits for the others: ends only where all threads work at once.
TEST(WorkQueue, EveryThreadTakesWork) {
  constexpr int kThreads = 4;
  std::latch met(kThreads);
  WorkQueue queue("test", kThreads);
  for (int i = 0; i < kThreads; ++i) queue.Submit([&met] { met.arrive_and_wait(); });
  met.wait();
}

TEST(WorkQueue, TakesWorkFromItsOwnThreads) {
  std::promise<void> done;
  WorkQueue queue("test", 1);
  queue.Submit([&] { queue.Submit([&done] { done.set_value(); }); });
  done.get_future().get();
}

TEST(WorkQueue, WorkOfWorkRunsBeforeItGoesToo) {
  std::atomic<int> ran{0};
  {
    WorkQueue queue("test", 2);
    for (int i = 0; i < 20; ++i) {
      queue.Submit([&] { queue.Submit([&ran] { ran++; }); });
    }
  }
  EXPECT_EQ(ran.load(), 20);
}

// What a library throws is no reason for a coordinator to end.
TEST(WorkQueue, WorkThatThrowsIsLostAndTheRestGoesOn) {
  std::promise<void> done;
  auto held = std::make_shared<int>(1);
  {
    WorkQueue queue("test", 1);
    queue.Submit([held] { throw std::runtime_error("on purpose"); });
    queue.Submit([&done] { done.set_value(); });
  }
  done.get_future().get();
  EXPECT_EQ(held.use_count(), 1) << "it was let go";
}

}  // namespace
}  // namespace lepton
