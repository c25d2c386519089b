// Who does which shard: all small clusters under every order of events, larger ones by seed.
#include "scheduler/core/shard_deal.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <string>

namespace lepton::scheduler {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr int64_t kNever = std::numeric_limits<int64_t>::max();

ShardHand Hand(uint32_t seat, std::vector<uint32_t> shards, int64_t since_ms = 0) {
  return {.seat = seat, .shards = std::move(shards), .since_ms = since_ms};
}

TEST(DealShards, EvenlyAndNeighboursTogether) {
  std::vector<ShardHand> hands = {Hand(0, {}), Hand(2, {}), Hand(5, {})};
  const ShardDeal deal = DealShards({0, 1, 2, 3, 4, 5, 6}, 7, kNever, &hands);
  EXPECT_THAT(hands[0].shards, ElementsAre(0, 1, 2));
  EXPECT_THAT(hands[1].shards, ElementsAre(3, 4, 5));
  EXPECT_THAT(hands[2].shards, ElementsAre(6));
  EXPECT_THAT(deal.changed, ElementsAre(0, 2, 5));
}

TEST(DealShards, WhatADeadRankHadGoesWhereHandsAreShortest) {
  std::vector<ShardHand> hands = {Hand(0, {0, 1, 2}), Hand(1, {8})};
  DealShards({0, 1, 2, 4, 5, 8}, 7, kNever, &hands);
  EXPECT_THAT(hands[0].shards, ElementsAre(0, 1, 2));
  EXPECT_THAT(hands[1].shards, ElementsAre(8, 4, 5));
}

TEST(DealShards, AnIdleRankTakesHalfOfTheRichestOnesTail) {
  std::vector<ShardHand> hands = {Hand(0, {0, 1, 2, 3, 4}), Hand(1, {8, 9}), Hand(2, {})};
  const ShardDeal deal = DealShards({0, 1, 2, 3, 4, 8, 9}, 7, kNever, &hands);
  EXPECT_THAT(hands[0].shards, ElementsAre(0, 1, 2));
  EXPECT_THAT(hands[2].shards, ElementsAre(3, 4));
  EXPECT_THAT(deal.changed, ElementsAre(0, 2));
}

TEST(DealShards, AShardThatIsLateIsDoneTwiceByOneWhoWouldBeIdle) {
  std::vector<ShardHand> hands = {Hand(0, {3}, 100), Hand(1, {4}, 50), Hand(2, {}), Hand(3, {})};
  EXPECT_THAT(DealShards({3, 4}, 140, 100, &hands).changed, IsEmpty()) << "not late yet";
  EXPECT_EQ(NextLateMs(hands, 140, 100), 150);
  const ShardDeal deal = DealShards({3, 4}, 150, 100, &hands);
  EXPECT_THAT(deal.late, ElementsAre(4, 4)) << "3 is not late, so both help with 4";
  EXPECT_THAT(hands[2].shards, ElementsAre(4));
  EXPECT_THAT(hands[0].shards, ElementsAre(3));
  // The fewest ranks first.
  hands = {Hand(0, {3}, 100), Hand(1, {4}, 50), Hand(2, {4}, 150), Hand(3, {})};
  EXPECT_THAT(DealShards({3, 4}, 300, 100, &hands).late, ElementsAre(3));
}

TEST(DealShards, OneThatLeavesEndsWhatItHasBegunOnly) {
  std::vector<ShardHand> hands = {Hand(0, {0, 1, 2}), Hand(1, {5})};
  hands[0].leaving = true;
  DealShards({0, 1, 2, 5}, 7, kNever, &hands);
  EXPECT_THAT(hands[0].shards, ElementsAre(0));
  EXPECT_THAT(hands[1].shards, ElementsAre(5, 1, 2));
  hands[1].leaving = true;
  EXPECT_THAT(DealShards({0, 1, 2, 5}, 7, kNever, &hands).changed, IsEmpty()) << "to whom?";
}

TEST(ShardLateness, IsOneAndAHalfMedians) {
  EXPECT_EQ(ShardLatenessMs({}), kNever);
  EXPECT_EQ(ShardLatenessMs({100}), 151);
  EXPECT_EQ(ShardLatenessMs({10, 1000, 100}), 151);
}

// A gang on paper. The coordinator hears of everything at once here; what it hears late is for
// shards_test.cc and the fault tests.
struct World {
  std::set<uint32_t> undone;
  std::vector<ShardHand> hands;
  int64_t now = 0;
  uint32_t next_seat = 0;

  std::string Key() const {
    std::string key;
    for (const uint32_t shard : undone) key += static_cast<char>('a' + shard);
    std::vector<std::string> each;
    for (const ShardHand& hand : hands) {
      std::string one = hand.leaving ? "L" : "|";
      for (const uint32_t shard : hand.shards) one += static_cast<char>('a' + shard);
      if (!hand.shards.empty() && now - hand.since_ms >= kLate) one += '!';
      each.push_back(one);
    }
    std::sort(each.begin(), each.end());
    for (const std::string& one : each) key += one;
    return key;
  }

  // Empty, or what does not hold.
  std::string Deal() {
    const std::vector<ShardHand> before = hands;
    DealShards({undone.begin(), undone.end()}, now, kLate, &hands);
    bool rich = false, idle = false, staying = false;
    std::set<uint32_t> held;
    for (size_t i = 0; i < hands.size(); ++i) {
      const ShardHand& hand = hands[i];
      staying = staying || !hand.leaving;
      idle = idle || (!hand.leaving && hand.shards.empty());
      rich = rich || hand.shards.size() > 1;
      const std::set<uint32_t> own(hand.shards.begin(), hand.shards.end());
      if (own.size() != hand.shards.size()) return "a shard twice in one hand";
      held.insert(own.begin(), own.end());
      const std::vector<uint32_t>& old = before[i].shards;
      if (!old.empty() && (hand.shards.empty() || hand.shards[0] != old[0])) {
        return "a shard in progress was taken away";
      }
    }
    if (staying && held != undone) return "not all that is undone is in a hand, or more";
    if (staying && idle && rich) return "one is idle, another has more than it does";
    for (const ShardHand& hand : hands) {
      const bool late = !hand.shards.empty() && now - hand.since_ms >= kLate;
      if (idle && late) return "one is idle, and a shard is late";
    }
    return "";
  }

  void Finish(size_t i) {
    const uint32_t shard = hands[i].shards[0];
    undone.erase(shard);
    for (ShardHand& hand : hands) {
      const bool first = !hand.shards.empty() && hand.shards[0] == shard;
      std::erase(hand.shards, shard);
      if (first) hand.since_ms = now;
    }
  }
  void Die(size_t i) { hands.erase(hands.begin() + static_cast<ptrdiff_t>(i)); }
  void Join() { hands.push_back(Hand(next_seat++, {})); }

  // Whoever stays goes on, and nothing else happens: how many shards are left then.
  size_t RunToTheEnd() {
    World end = *this;
    for (int round = 0; round < 100 && !end.undone.empty(); ++round) {
      end.now += kLate;
      if (!end.Deal().empty()) break;
      for (size_t i = 0; i < end.hands.size(); ++i) {
        if (!end.hands[i].shards.empty()) end.Finish(i);
      }
    }
    return end.undone.size();
  }

  static constexpr int64_t kLate = 100;
};

// Every order of what may happen, up to a number of deaths, joins and leaves.
class Explorer {
 public:
  void Visit(World world, int deaths, int joins, int leaves) {
    const std::string broken = world.Deal();
    ASSERT_EQ(broken, "") << world.Key();
    const std::string key = world.Key() + std::to_string(deaths * 100 + joins * 10 + leaves);
    if (!seen_.insert(key).second) return;
    if (std::any_of(world.hands.begin(), world.hands.end(), [](auto& h) { return !h.leaving; })) {
      ASSERT_EQ(world.RunToTheEnd(), 0u) << world.Key() << ": somebody stays, and it does not end";
    }
    for (size_t i = 0; i < world.hands.size() && !testing::Test::HasFatalFailure(); ++i) {
      if (!world.hands[i].shards.empty()) {
        World next = world;
        next.now += 10;
        next.Finish(i);
        Visit(next, deaths, joins, leaves);
      }
      if (deaths > 0) {
        World next = world;
        next.Die(i);
        Visit(next, deaths - 1, joins, leaves);
      }
      if (leaves > 0 && !world.hands[i].leaving) {
        World next = world;
        next.hands[i].leaving = true;
        Visit(next, deaths, joins, leaves - 1);
      }
    }
    if (joins > 0) {
      World next = world;
      next.Join();
      Visit(next, deaths, joins - 1, leaves);
    }
    // Those that have something take long.
    World next = world;
    next.now += World::kLate;
    if (next.Key() != world.Key()) Visit(next, deaths, joins, leaves);
  }
  size_t states() const { return seen_.size(); }

 private:
  std::set<std::string> seen_;
};

TEST(DealShards, EveryOrderOfEventsInSmallClusters) {
  size_t states = 0;
  for (uint32_t shards = 1; shards <= 5; ++shards) {
    for (int ranks = 1; ranks <= 3; ++ranks) {
      World world;
      for (uint32_t i = 0; i < shards; ++i) world.undone.insert(i);
      for (int i = 0; i < ranks; ++i) world.Join();
      Explorer explorer;
      explorer.Visit(world, /*deaths=*/2, /*joins=*/2, /*leaves=*/1);
      ASSERT_FALSE(HasFatalFailure());
      states += explorer.states();
    }
  }
  EXPECT_GT(states, 10'000u);
}

TEST(DealShards, RandomSchedulesOfLargeClusters) {
  for (uint32_t seed = 1; seed <= 300; ++seed) {
    std::mt19937 dice(seed);
    const auto pick = [&](size_t below) { return static_cast<size_t>(dice() % below); };
    World world;
    const size_t shards = 1 + pick(200);
    for (uint32_t i = 0; i < shards; ++i) world.undone.insert(i);
    for (size_t i = 0; i <= pick(12); ++i) world.Join();
    size_t finished = 0;
    for (int step = 0; step < 2'000 && !world.undone.empty(); ++step) {
      const std::string broken = world.Deal();
      ASSERT_EQ(broken, "") << "seed " << seed << " step " << step;
      world.now += static_cast<int64_t>(pick(60));
      const size_t event = pick(20);
      if (world.hands.empty() || event == 0) {
        world.Join();
        continue;
      }
      const size_t i = pick(world.hands.size());
      if (event == 1) {
        world.Die(i);
      } else if (event == 2 && world.hands.size() > 1) {
        world.hands[i].leaving = true;
      } else if (!world.hands[i].shards.empty()) {
        world.Finish(i);
        ++finished;
      }
    }
    EXPECT_EQ(finished + world.undone.size(), shards) << "seed " << seed << ": each once";
  }
}

}  // namespace
}  // namespace lepton::scheduler
