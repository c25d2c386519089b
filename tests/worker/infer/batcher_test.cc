#include "worker/infer/batcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>

namespace lepton::worker {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

using Logits = Result<std::vector<float>>;

// A forward pass that adds 0.5 to each row's one feature, can be blocked, and notes its batches.
class Engine {
 public:
  Batcher::Forward Function() {
    return [this](const ModelRows& rows, std::span<float> logits) -> Status {
      const std::vector<double>& raw = rows.raw;
      std::unique_lock lock(mutex_);
      batches_.push_back(rows.rows);
      changed_.notify_all();
      changed_.wait(lock, [this] { return !blocked_; });
      for (size_t i = 0; i < raw.size(); ++i) {
        if (raw[i] < 0) return InvalidArgument("negative");
        logits[i] = static_cast<float>(raw[i]) + 0.5f;
      }
      return {};
    };
  }
  void Block() {
    std::lock_guard lock(mutex_);
    blocked_ = true;
  }
  void Unblock() {
    std::lock_guard lock(mutex_);
    blocked_ = false;
    changed_.notify_all();
  }
  bool WaitForBatches(size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, seconds(5), [&] { return batches_.size() >= count; });
  }
  std::vector<int64_t> batches() {
    std::lock_guard lock(mutex_);
    return batches_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<int64_t> batches_;
  bool blocked_ = false;
};

BatcherOptions Options() {
  BatcherOptions options;
  options.outputs = 1;
  options.max_batch = 4;
  options.max_queue = 8;
  options.max_wait = milliseconds(1);
  return options;
}

std::future<Logits> Ask(Batcher& batcher, std::vector<double> raw, uint64_t* ticket = nullptr) {
  auto promise = std::make_shared<std::promise<Logits>>();
  auto future = promise->get_future();
  const auto rows = static_cast<int64_t>(raw.size());
  const uint64_t id = batcher.Submit({rows, std::move(raw), {}}, [promise](Logits logits) {
    promise->set_value(std::move(logits));
  });
  if (ticket != nullptr) *ticket = id;
  return future;
}

TEST(Batcher, ALoneRequestRunsAtOnce) {
  Engine engine;
  BatcherOptions options = Options();
  options.max_wait = seconds(30);
  Batcher batcher(options, engine.Function());
  for (int i = 0; i < 3; ++i) {
    auto answer = Ask(batcher, {1});
    ASSERT_EQ(answer.wait_for(seconds(5)), std::future_status::ready) << "it waited for company";
    EXPECT_EQ(answer.get().value(), std::vector<float>{1.5f});
  }
}

TEST(Batcher, PutsWaitingRequestsTogetherAndGivesEachItsOwnRows) {
  Engine engine;
  Batcher batcher(Options(), engine.Function());
  engine.Block();
  auto first = Ask(batcher, {0});
  ASSERT_TRUE(engine.WaitForBatches(1));
  auto a = Ask(batcher, {1}), b = Ask(batcher, {2, 3}), c = Ask(batcher, {4}),
       d = Ask(batcher, {5});
  engine.Unblock();
  EXPECT_EQ(first.get().value(), std::vector<float>{0.5f});
  EXPECT_EQ(a.get().value(), std::vector<float>{1.5f});
  EXPECT_EQ(b.get().value(), (std::vector<float>{2.5f, 3.5f}));
  EXPECT_EQ(c.get().value(), std::vector<float>{4.5f});
  EXPECT_EQ(d.get().value(), std::vector<float>{5.5f});
  EXPECT_THAT(engine.batches(), testing::ElementsAre(1, 4, 1));
}

TEST(Batcher, AnIncompleteBatchWaitsNoLongerThanMaxWait) {
  Engine engine;
  BatcherOptions options = Options();
  options.max_wait = milliseconds(60);
  Batcher batcher(options, engine.Function());
  engine.Block();
  auto first = Ask(batcher, {0});
  ASSERT_TRUE(engine.WaitForBatches(1));
  const auto begin = std::chrono::steady_clock::now();
  auto a = Ask(batcher, {1}), b = Ask(batcher, {2});
  engine.Unblock();
  ASSERT_EQ(b.wait_for(seconds(5)), std::future_status::ready);
  EXPECT_GE(std::chrono::steady_clock::now() - begin, milliseconds(55));
  EXPECT_LT(std::chrono::steady_clock::now() - begin, seconds(2));
  EXPECT_THAT(engine.batches(), testing::ElementsAre(1, 2));
}

TEST(Batcher, ALargeRequestIsComputedInSlices) {
  Engine engine;
  Batcher batcher(Options(), engine.Function());
  EXPECT_EQ(Ask(batcher, {1, 2, 3, 4, 5, 6, 7}).get().value(),
            (std::vector<float>{1.5f, 2.5f, 3.5f, 4.5f, 5.5f, 6.5f, 7.5f}));
  EXPECT_THAT(engine.batches(), testing::ElementsAre(4, 3));
}

TEST(Batcher, AFullQueueRefuses) {
  Engine engine;
  Batcher batcher(Options(), engine.Function());
  engine.Block();
  auto running = Ask(batcher, {0});
  ASSERT_TRUE(engine.WaitForBatches(1));
  auto queued = Ask(batcher, std::vector<double>(8, 1));
  EXPECT_EQ(Ask(batcher, {1}).get().status().code(), StatusCode::kResourceExhausted);
  EXPECT_EQ(Ask(batcher, std::vector<double>(9, 1)).get().status().code(),
            StatusCode::kInvalidArgument);
  engine.Unblock();
  EXPECT_TRUE(queued.get().ok());
  EXPECT_TRUE(Ask(batcher, {1}).get().ok()) << "room again";
}

TEST(Batcher, ExpiredAndCancelledRequestsAreNotComputed) {
  Engine engine;
  BatcherOptions options = Options();
  options.timeout = milliseconds(50);
  Batcher batcher(options, engine.Function());
  engine.Block();
  auto running = Ask(batcher, {0});
  ASSERT_TRUE(engine.WaitForBatches(1));
  uint64_t ticket = 0;
  auto expired = Ask(batcher, {1}), cancelled = Ask(batcher, {2}, &ticket);
  batcher.Cancel(ticket);
  std::this_thread::sleep_for(milliseconds(80));
  engine.Unblock();
  EXPECT_EQ(expired.get().status().code(), StatusCode::kDeadlineExceeded);
  EXPECT_THROW(cancelled.get(), std::future_error) << "its done must be dropped uncalled";
  EXPECT_TRUE(running.get().ok());
  EXPECT_TRUE(batcher.Drain(Deadline::In(seconds(5))));
  EXPECT_THAT(engine.batches(), testing::ElementsAre(1));
  batcher.Cancel(ticket);  // too late: nothing
}

TEST(Batcher, AnErrorOfTheEngineReachesEveryRequestOfTheBatch) {
  Engine engine;
  Batcher batcher(Options(), engine.Function());
  EXPECT_EQ(Ask(batcher, {-1}).get().status(), InvalidArgument("negative"));
  EXPECT_TRUE(Ask(batcher, {1}).get().ok());
}

TEST(Batcher, DrainWaitsAndDestructionAnswers) {
  Engine engine;
  std::future<Logits> queued;
  std::thread release;
  {
    Batcher batcher(Options(), engine.Function());
    engine.Block();
    auto running = Ask(batcher, {0});
    ASSERT_TRUE(engine.WaitForBatches(1));
    EXPECT_FALSE(batcher.Drain(Deadline::In(milliseconds(20))));
    std::vector<std::future<Logits>> more;
    for (int i = 0; i < 2; ++i) more.push_back(Ask(batcher, {1, 2, 3, 4}));
    queued = std::move(more[1]);
    release = std::thread([&engine] {
      std::this_thread::sleep_for(milliseconds(20));
      engine.Unblock();
    });
  }
  release.join();
  const Logits outcome = queued.get();
  EXPECT_TRUE(outcome.ok() || outcome.status().code() == StatusCode::kUnavailable);
}

TEST(Batcher, ManyThreadsGetTheirOwnAnswers) {
  Engine engine;
  BatcherOptions options = Options();
  options.max_queue = 1000;
  Batcher batcher(options, engine.Function());
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 200; ++i) {
        const double value = t * 1000 + i;
        const Logits logits = Ask(batcher, {value, value + 0.25}).get();
        const auto expected = std::vector<float>{static_cast<float>(value) + 0.5f,
                                                 static_cast<float>(value + 0.25) + 0.5f};
        if (!logits.ok() || *logits != expected) ++wrong;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_LT(engine.batches().size(), 1600u) << "nothing was batched";
}

}  // namespace
}  // namespace lepton::worker
