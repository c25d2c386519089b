#include "worker/object_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "runtime/base/file.h"
#include "runtime/base/hash.h"
#include "tests/worker/agent/running_agent.h"

namespace lepton::worker {
namespace {

using std::chrono::milliseconds;

class ObjectCacheTest : public testing::Test {
 protected:
  ObjectCacheTest() : store_(storage::ObjectStore::Open(folder_.path()).value()) {}

  storage::Digest Put(char letter, size_t bytes = 1000) {
    const storage::Digest digest = store_->Put(std::string(bytes, letter)).value();
    Tick();
    return digest;
  }
  // The file system's clock is coarser than ours: what is done after it is later by both.
  static void Tick() { std::this_thread::sleep_for(milliseconds(12)); }
  ObjectCache::Options Limit(uint64_t bytes) {
    return {.limit_bytes = bytes, .interval = std::chrono::hours(1), .idle = Duration(0)};
  }

  TempFolder folder_;
  std::unique_ptr<storage::ObjectStore> store_;
};

TEST_F(ObjectCacheTest, TheLongestUnusedGoFirst) {
  const auto a = Put('a'), b = Put('b'), c = Put('c'), d = Put('d');
  ASSERT_TRUE(store_->Touch(a).ok());
  ObjectCache cache(store_.get(), Limit(3000));
  EXPECT_EQ(cache.Trim(), 2000u);  // to seven eighths
  EXPECT_TRUE(store_->Has(a));
  EXPECT_FALSE(store_->Has(b));
  EXPECT_FALSE(store_->Has(c));
  EXPECT_TRUE(store_->Has(d));
  EXPECT_EQ(cache.Trim(), 0u);
}

TEST_F(ObjectCacheTest, StoringAgainIsUse) {
  const auto a = Put('a'), b = Put('b');
  EXPECT_EQ(Put('a'), a);
  ObjectCache cache(store_.get(), Limit(1500));
  cache.Trim();
  EXPECT_TRUE(store_->Has(a));
  EXPECT_FALSE(store_->Has(b));
}

TEST_F(ObjectCacheTest, WhatIsHeldStaysEvenOverTheLimit) {
  const auto a = Put('a'), b = Put('b');
  ObjectCache cache(store_.get(), Limit(500));
  ObjectCache::Hold first = cache.Keep({a}), second = cache.Keep({a, b});
  Tick();
  EXPECT_EQ(cache.Trim(), 0u);
  second.reset();
  Tick();
  EXPECT_EQ(cache.Trim(), 1000u);
  EXPECT_TRUE(store_->Has(a));
  EXPECT_FALSE(store_->Has(b));
  first.reset();
  Tick();
  EXPECT_EQ(cache.Trim(), 1000u);
}

TEST_F(ObjectCacheTest, AnotherAgentsObjectsInTheSameFolderStay) {
  const auto a = Put('a'), b = Put('b');
  auto other_store = storage::ObjectStore::Open(folder_.path()).value();
  ObjectCache other(other_store.get(), Limit(0));
  const ObjectCache::Hold held = other.Keep({a});
  ObjectCache::Options options = Limit(500);
  options.idle = std::chrono::minutes(5);
  EXPECT_EQ(ObjectCache(store_.get(), options).Trim(), 0u) << "both were used just now";
  options.idle = milliseconds(200);
  std::this_thread::sleep_for(milliseconds(250));
  other.Trim();  // as its thread does
  EXPECT_EQ(ObjectCache(store_.get(), options).Trim(), 1000u);
  EXPECT_TRUE(store_->Has(a));
  EXPECT_FALSE(store_->Has(b));
}

TEST_F(ObjectCacheTest, TheThreadLooksWhenAsked) {
  Put('a'), Put('b');
  ObjectCache cache(store_.get(), Limit(1500));
  cache.Look();
  const Deadline deadline = Deadline::In(std::chrono::seconds(10));
  while (store_->List().value().size() > 1 && !deadline.Expired()) {
    Tick();
  }
  EXPECT_EQ(store_->List().value().size(), 1u);
}

// Whoever stored an object finds it, however hard the cache trims.
TEST_F(ObjectCacheTest, WhatWasJustStoredOrTouchedIsNotLost) {
  ObjectCache::Options options = Limit(1);
  options.idle = milliseconds(50);
  ObjectCache cache(store_.get(), options);
  std::atomic<bool> done{false};
  std::thread trimmer([&] {
    while (!done) cache.Trim();
  });
  const Deadline deadline = Deadline::In(milliseconds(500));
  for (int i = 0; !deadline.Expired(); ++i) {
    const MonotonicTime begun = RealClock().Now();
    const auto digest = store_->Put("the same bytes, again and again").value();
    if (!store_->Has(digest)) {
      // Between being taken aside and put back, for microseconds.
      std::this_thread::sleep_for(milliseconds(5));
      // Unless this thread had no core for so long that it may be gone.
      const bool there = store_->Has(digest);
      EXPECT_TRUE(there || RealClock().Now() - begun >= options.idle);
    }
    std::this_thread::sleep_for(milliseconds(i % 3 * 30));
  }
  done = true;
  trimmer.join();
}

TEST(AgentCacheTest, AWorkerForgetsInputsOfTasksThatAreOver) {
  TempFolder folder;
  FakeCoordinator coordinator;
  const std::string old(100'000, 'o'), young(100'000, 'y');
  coordinator.AddObject(Sha256Hex(old), old);
  coordinator.AddObject(Sha256Hex(young), young);
  RunningAgent agent(coordinator, [&](AgentOptions& options) {
    options.data_dir = folder.path();
    options.cache_limit_bytes = 150'000;
    options.cache_idle = milliseconds(0);
  });
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  wire::StartTask sleeping = Task("sleeps", "sleep");
  sleeping.add_inputs()->set_digest(Sha256Hex(old));
  coordinator.Start(sleeping);
  coordinator.AwaitStarted("sleeps");
  wire::StartTask start = Task("t", "exit");
  start.add_inputs()->set_digest(Sha256Hex(young));
  coordinator.Start(start);
  coordinator.AwaitFinished("t");
  const auto store = storage::ObjectStore::Open(folder.path()).value();
  const auto gone = [&](const std::string& bytes) {
    const Deadline deadline = Deadline::In(std::chrono::seconds(10));
    while (store->Has(Sha256Hex(bytes)) && !deadline.Expired()) {
      std::this_thread::sleep_for(milliseconds(2));
    }
    return !store->Has(Sha256Hex(bytes));
  };
  EXPECT_TRUE(gone(young)) << "no task uses it any more";
  EXPECT_TRUE(store->Has(Sha256Hex(old))) << "a task that runs has it as an input";
}

}  // namespace
}  // namespace lepton::worker
