// A rank's shards as orders come: late, twice, and again.
#include "worker/shard_orders.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace lepton::worker {
namespace {

using std::chrono::seconds;

class ShardOrdersTest : public testing::Test {
 protected:
  ShardOrdersTest() : orders_([this](const wire::TaskUp& up) { said_.push_back(up); }) {
    orders_.Ready(95, 10);
  }
  void Order(const std::vector<uint32_t>& shards, uint32_t seen = 0) {
    wire::TaskShards order;
    order.set_rows(95);
    order.set_shard_rows(10);
    order.mutable_shards()->Add(shards.begin(), shards.end());
    order.set_seen(seen);
    orders_.OnOrder(order);
  }
  void Done(uint32_t shard) {
    wire::TaskShardDone done;
    done.set_shard(shard);
    orders_.Done(done);
  }
  std::vector<wire::TaskUp> said_;
  ShardOrders orders_;
};

TEST_F(ShardOrdersTest, SaysWhatItHasAndTakesWhatItIsGiven) {
  ASSERT_EQ(said_.size(), 1u);
  EXPECT_EQ(said_[0].shards_ready().rows(), 95);
  EXPECT_EQ(said_[0].shards_ready().shard_rows(), 10);
  Order({9, 2});
  const Shard first = orders_.Next().value();
  EXPECT_EQ(first.index, 9u);
  EXPECT_EQ(first.first, 90);
  EXPECT_EQ(first.last, 95) << "the last shard is what is left";
  Done(9);
  EXPECT_EQ(said_[1].shard_done().shard(), 9u);
  EXPECT_EQ(orders_.Next().value().index, 2u);
}

TEST_F(ShardOrdersTest, AnOrderThatWasGivenBeforeItWasHeardIsNotDoneTwice) {
  Order({3, 4, 5});
  Done(3);
  Order({3, 4, 5});  // from before
  EXPECT_EQ(orders_.Next().value().index, 4u);
  Done(4);
  Order({3, 5}, 2);  // from after: the object of 3 was lost
  EXPECT_EQ(orders_.Next().value().index, 3u);
  Done(3);
  Order({3, 5}, 2);
  EXPECT_EQ(orders_.Next().value().index, 5u);
}

TEST_F(ShardOrdersTest, WhatIsTakenAwayIsLetGo) {
  Order({3, 4});
  const Shard shard = orders_.Next().value();
  EXPECT_TRUE(orders_.GoOn(shard, seconds(100)).ok());
  Order({4});
  EXPECT_EQ(orders_.GoOn(shard, seconds(0)).code(), StatusCode::kAborted);
  EXPECT_EQ(orders_.Next().value().index, 4u);
}

TEST_F(ShardOrdersTest, OneThatLeavesEndsWhatItCanInTimeAndTakesNothingMore) {
  Order({3, 4});
  const Shard shard = orders_.Next().value();
  orders_.OnLeave("drained", seconds(1000));
  EXPECT_TRUE(orders_.GoOn(shard, seconds(10)).ok());
  EXPECT_EQ(orders_.GoOn(shard, seconds(900)).code(), StatusCode::kCancelled);
  Done(3);
  EXPECT_EQ(orders_.Next().status().code(), StatusCode::kCancelled);
  orders_.OnStop("cancelled");
  EXPECT_EQ(orders_.GoOn(shard, seconds(0)).code(), StatusCode::kCancelled);
}

TEST_F(ShardOrdersTest, AWaitEndsWithAnOrderOrAStop) {
  std::thread later([this] { Order({7}); });
  EXPECT_EQ(orders_.Next().value().index, 7u);
  later.join();
  Done(7);
  std::thread stop([this] { orders_.OnStop("every shard is done"); });
  EXPECT_EQ(orders_.Next().status().code(), StatusCode::kCancelled);
  stop.join();
}

TEST_F(ShardOrdersTest, OtherDataThanItsPeersIsAnError) {
  orders_.Ready(96, 10);
  Order({1});
  EXPECT_EQ(orders_.Next().status().code(), StatusCode::kDataLoss);
}

}  // namespace
}  // namespace lepton::worker
