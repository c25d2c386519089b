// Deaths that strike again while the others recover, while a joiner gets the state, or while those
// that leave hand over: as long as a rank lives that had all of the state (with slices: one of each
// pair of buddies), training goes on from there, with the bits of the undisturbed run.
// LEPTON_NESTED_SEEDS=10000 runs more schedules, LEPTON_NESTED_FIRST=7 begins there.
#include <fmt/format.h>
#include <glog/logging.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>
#include <random>
#include <set>

#include "tests/worker/train/zero_gang.h"
#include "worker/train/zero_layout.h"

namespace lepton::worker {
namespace {

using testing::Death;
using testing::Member;
using testing::ZeroTraining;

struct Kind {
  const char* name;
  const char* fields;
  uint64_t steps;
  int hidden;
  int zero;
  bool at_once;  // a joiner has all of the state as soon as it has met the others
  int seeds;
  bool joins_beside = false;  // with slices
};

constexpr Kind kKinds[] = {
    {"Small", "gradients: {bucket_bytes: 1048576}", 5, 40, 0, true, 300},
    {"SmallWithCheckpoints", "gradients: {bucket_bytes: 1048576}, checkpoint: {every_steps: 2}", 5,
     40, 0, true, 300},
    // The state goes beside the steps, in six pieces.
    {"Large", "gradients: {bucket_bytes: 4096}", 12, 40, 0, false, 300},
    {"LargeWithCheckpoints", "gradients: {bucket_bytes: 4096}, checkpoint: {every_steps: 2}", 12,
     40, 0, false, 300},
    {"LocalSgd",
     "local_sgd: {inner_steps: 2}, gradients: {bucket_bytes: 4096}, checkpoint: {every_steps: 2}",
     8, 40, 0, false, 200},
    {"Zero1", "parallel: {zero: 1}, gradients: {bucket_bytes: 65536}, checkpoint: {every_steps: 1}",
     5, 230, 1, true, 100},
    {"Zero2", "parallel: {zero: 2}, gradients: {bucket_bytes: 65536}", 5, 230, 2, true, 100},
    {"Zero2InStripes",
     "parallel: {zero: 2}, gradients: {bucket_bytes: 65536}, checkpoint: {every_steps: 1}", 5, 560,
     2, true, 10, true},
    {"Zero3", "parallel: {zero: 3}, gradients: {bucket_bytes: 65536}, checkpoint: {every_steps: 2}",
     5, 230, 3, true, 100},
    {"Zero3InStripes",
     "parallel: {zero: 3}, gradients: {bucket_bytes: 65536}, checkpoint: {every_steps: 2}", 5, 560,
     3, true, 10, true},
};

// Who can go on from what, seen from outside.
class Holders {
 public:
  Holders(const ZeroTraining& training, const Kind& kind) : kind_(kind) {
    for (const auto& member : training.members) whole_.insert(member->number);
  }
  // Before a group.
  void Meet(const ZeroTraining& training) {
    met_.clear();
    for (const auto& member : training.members) met_.push_back(member->number);
  }
  // Behind it.
  void Over(const ZeroTraining& training) {
    if (kind_.at_once && !kind_.joins_beside)
      whole_.insert(training.entered.begin(), training.entered.end());
    if (training.entered.empty()) return;
    // Who has joined gets its slices beside the steps, and a run is over before that is certain:
    // the cut is among those that began it, or some more.
    holders_ = 0;
    while (holders_ < met_.size() && whole_.count(met_[holders_]) > 0) ++holders_;
    holders_ = kind_.joins_beside ? std::max<size_t>(holders_, 1) : met_.size();
    layout_ = met_;
    std::set<int> left;
    for (const auto* list : {&training.members, &training.gone}) {
      for (const auto& member : *list) {
        if (!Contains(training.entered, member->number)) continue;
        for (const int rank : member->loop->parting().left) {
          left.insert(met_[static_cast<size_t>(rank)]);
        }
      }
    }
    std::erase_if(layout_, [&](int number) { return left.count(number) > 0; });
    holders_ = std::min(holders_, layout_.size());
  }
  // Nobody that lives has the state, or some slice of it.
  bool Lost(const ZeroTraining& training) const {
    const auto lives = [&](int number) {
      return std::any_of(training.members.begin(), training.members.end(),
                         [&](const auto& member) { return member->number == number; });
    };
    // Before a group has met all have what they began with.
    if (kind_.zero == 0 || layout_.empty())
      return std::none_of(whole_.begin(), whole_.end(), lives);
    const auto rank_lives = [&](int rank) { return lives(layout_[static_cast<size_t>(rank)]); };
    for (size_t among = holders_; among <= layout_.size(); ++among) {
      const int ranks = static_cast<int>(among);
      for (int rank = 0; rank < ranks; ++rank) {
        if (!rank_lives(rank) && !rank_lives(BuddyOf(rank, ranks))) return true;
      }
    }
    return false;
  }

 private:
  static bool Contains(const std::vector<int>& numbers, int number) {
    return std::find(numbers.begin(), numbers.end(), number) != numbers.end();
  }

  const Kind& kind_;
  std::set<int> whole_;
  std::vector<int> met_, layout_;  // by rank: of the newest group; of the newest that has met
  size_t holders_ = 0;             // of these: the first ones have slices for certain
};

// One run, hurt by what the seed decides.
class Schedule {
 public:
  enum class End { kDone, kLost, kLeft };

  Schedule(ZeroTraining& training, const Kind& kind, int seed)
      : training_(training),
        dice_(static_cast<unsigned>(seed)),
        text_(fmt::format("seed {}", seed)) {
    const int ranks = 2 + Roll(3);
    for (int rank = 0; rank < ranks; ++rank) training_.Add();
    holders_.emplace(training_, kind);
    deaths_left_ = 2 + Roll(2);
  }
  const std::string& text() const { return text_; }
  int deaths() const { return deaths_; }

  End Run() {
    constexpr int kMostGroups = 20;
    for (int group = 0; group < kMostGroups; ++group) {
      Wish();
      const Death death = NextDeath();
      const size_t size = training_.members.size(), left = training_.gone.size();
      holders_->Meet(training_);
      training_.Group(death);
      holders_->Over(training_);
      if (training_.members.size() + training_.gone.size() < size + left) {
        --deaths_left_;
        ++deaths_;
      }
      // The last one had been told to leave.
      if (training_.members.empty()) return End::kLeft;
      int done = 0, lost = 0;
      for (const auto& member : training_.members) {
        const StatusCode code = member->status.code();
        text_ += fmt::format("\n    member {}: {}", member->number, member->status.ToString());
        done += member->status.ok();
        lost += code == StatusCode::kInternal;
        EXPECT_TRUE(member->status.ok() || lost > 0 || code == StatusCode::kAborted) << text_;
      }
      if (lost > 0) {
        EXPECT_TRUE(holders_->Lost(training_)) << text_;
        return End::kLost;
      }
      if (done == static_cast<int>(training_.members.size())) return End::kDone;
      if (::testing::Test::HasFailure()) return End::kLost;
      if (deaths_left_ > 0 && training_.members.size() < 5 && Roll(2) == 0) {
        training_.Add(/*has_state=*/false);
        text_ += "\n  another joins";
      }
    }
    ADD_FAILURE() << "no end: " << text_;
    return End::kLost;
  }

 private:
  int Roll(int sides) { return static_cast<int>(dice_() % static_cast<unsigned>(sides)); }
  Member& Any() { return *training_.members[static_cast<size_t>(Roll(size()))]; }
  int size() const { return static_cast<int>(training_.members.size()); }

  // Somebody is to leave, or the group is to end; a wish to leave may outlive the group.
  void Wish() {
    for (const auto& member : training_.members) {
      auto& observer = member->observer;
      observer.regroup_at = 1000;
      if (Roll(2) == 0) observer.leave_at = observer.leave_behind = 1000;
    }
    const uint64_t soon =
        training_.members[0]->observer.committed + 1 + static_cast<uint64_t>(Roll(3));
    const int wish = deaths_left_ > 0 ? Roll(5) : 4;
    text_ += fmt::format("\n  group of {}", size());
    if (wish == 0) {
      training_.members[0]->observer.regroup_at = soon;
      text_ += fmt::format(", ends behind step {}", soon);
    }
    if (wish > 2 || wish == 0 || size() < 3) return;
    Member& leaver = Any();
    (wish == 1 ? leaver.observer.leave_at : leaver.observer.leave_behind) = soon;
    text_ += fmt::format(", member {} leaves {} step {}", leaver.number,
                         wish == 1 ? "with" : "behind", soon);
  }

  // Mostly as they meet.
  Death NextDeath() {
    Death death;
    if (deaths_left_ == 0 || size() < 2 || Roll(5) == 0) return death;
    const int at = Roll(2) == 0 ? Roll(8) : Roll(40);
    death.victim = Roll(size());
    if (Roll(4) == 0) {
      death.message = at / 2;
      text_ += fmt::format(", rank {} dies in message {}", death.victim, death.message);
    } else {
      death.call = at;
      death.lucky = static_cast<unsigned>(Roll(4) == 0 ? 31 : Roll(32));
      text_ += fmt::format(", rank {} dies in call {}, lucky {:b}", death.victim, death.call,
                           death.lucky);
    }
    return death;
  }

  ZeroTraining& training_;
  std::mt19937 dice_;
  std::optional<Holders> holders_;
  std::string text_;
  int deaths_left_ = 0, deaths_ = 0;
};

int FromEnvironment(const char* name, int otherwise) {
  const char* const value = std::getenv(name);
  return value != nullptr ? std::atoi(value) : otherwise;
}

ZeroTraining TrainingOf(const Kind& kind) {
  return ZeroTraining(
      fmt::format("optimizer: {{name: adamw, lr: 0.01}}, clip_norm: 0.5, {}", kind.fields),
      kind.steps, kind.hidden);
}

// The weights, and the checkpoints.
std::string Undisturbed(const Kind& kind,
                        std::unique_ptr<testing::CheckpointBoard>* board = nullptr) {
  ZeroTraining training = TrainingOf(kind);
  training.Add();
  training.Group();
  if (board != nullptr) *board = std::move(training.board);
  return training.Weights(*training.members[0]);
}

class NestedDeathOf : public ::testing::Test {
 protected:
  void SetUp() override { FLAGS_minloglevel = 2; }
};
class NestedDeath : public NestedDeathOf, public ::testing::WithParamInterface<Kind> {};

TEST_P(NestedDeath, CostsNothingAsLongAsSomebodyHasTheState) {
  const Kind& kind = GetParam();
  std::unique_ptr<testing::CheckpointBoard> checkpoints;
  const std::string calm = Undisturbed(kind, &checkpoints);
  const int first = FromEnvironment("LEPTON_NESTED_FIRST", 0);
  const int seeds = FromEnvironment("LEPTON_NESTED_SEEDS", kind.seeds);
  int done = 0, lost = 0, left = 0, deaths = 0;
  size_t compared = 0;
  for (int seed = first; seed < first + seeds && !HasFailure(); ++seed) {
    ZeroTraining training = TrainingOf(kind);
    Schedule schedule(training, kind, seed);
    const Schedule::End end = schedule.Run();
    deaths += schedule.deaths();
    done += end == Schedule::End::kDone;
    lost += end == Schedule::End::kLost;
    left += end == Schedule::End::kLeft;
    if (end == Schedule::End::kDone) training.ExpectAll(calm, schedule.text());
    training.board->ExpectAsIn(*checkpoints, schedule.text());
    for (const auto& member : training.members) {
      const storage::Digest& last = member->outcome.last_checkpoint;
      EXPECT_TRUE(last.empty() || training.board->IsManifest(last)) << schedule.text();
    }
    compared += training.board->whole.size();
    if (end == Schedule::End::kLeft) {
      EXPECT_TRUE(training.gone.back()->loop->parting().saved) << schedule.text();
    }
  }
  std::cout << fmt::format(
      "{} deaths: {} runs went on, {} were left by all, {} had lost the state; {} "
      "checkpoints\n",
      deaths, done, left, lost, compared);
  EXPECT_GT(done, 3 * lost);
}

INSTANTIATE_TEST_SUITE_P(Kinds, NestedDeath, ::testing::ValuesIn(kKinds),
                         [](const auto& one) { return std::string(one.param.name); });

// The holes that the schedules found first, each by itself. In call 2 the second gradient is
// summed: rank 1 alone gets it, and the other is a step behind.
TEST_F(NestedDeathOf, TheOnlyRankThatIsAStepAheadLeavesTheOthersWhatTheyHad) {
  for (const int kind : {0, 2, 4}) {
    const std::string calm = Undisturbed(kKinds[kind]);
    for (int call = 0; call < 8; ++call) {
      ZeroTraining training = TrainingOf(kKinds[kind]);
      for (int rank = 0; rank < 3; ++rank) training.Add();
      training.Group({.call = 2, .victim = 0, .lucky = 0b010});
      training.Group({.call = call, .victim = 0});
      ASSERT_EQ(training.members.size(), 1u);
      training.Group();
      training.ExpectAll(calm, fmt::format("{}, call {}", kKinds[kind].name, call));
    }
  }
}

// Some rank has taken part, and another has not been told so, though it has drawn the same.
TEST_F(NestedDeathOf, TheOnlyRankThatHasBegunLeavesTheOthersWhatTheyDrew) {
  for (const Kind& kind : kKinds) {
    const std::string calm = Undisturbed(kind);
    for (const int call : {0, 1, 2}) {
      for (const int again : {0, 1, 2}) {
        ZeroTraining training = TrainingOf(kind);
        for (int rank = 0; rank < 3; ++rank) training.Add();
        training.Group({.call = call, .victim = 0, .lucky = 0b010});
        training.Group({.call = again, .victim = 0, .lucky = 0b010});
        ASSERT_EQ(training.members.size(), 1u);
        if (call > 1 && kind.zero > 0) break;  // both buddies of a group that has met
        training.Group();
        training.ExpectAll(calm, fmt::format("{}, calls {} and {}", kind.name, call, again));
      }
    }
  }
}

// Stage 3: who lets go of the whole weights knows that the others count theirs.
TEST_F(NestedDeathOf, WhatWasDrawnCountsForAllOnceItHasCountedForSome) {
  const std::string calm = Undisturbed(kKinds[8]);
  ASSERT_EQ(kKinds[8].zero, 3);
  for (int at = 0; at < 18; ++at) {
    const int message = at / 3, call = 1 + at % 3;
    ZeroTraining training = TrainingOf(kKinds[8]);
    for (int rank = 0; rank < 4; ++rank) training.Add();
    training.Group({.call = 1, .victim = 1, .lucky = 0b1010});
    training.Group({.call = call, .victim = 0, .lucky = 0b100});
    training.Group({.victim = 1, .message = message});
    training.Group();
    training.ExpectAll(calm, fmt::format("call {}, message {}", call, message));
  }
}

// One has evaluated what follows a step, the other has not: they must not go on side by side.
TEST_F(NestedDeathOf, RanksAtOnePlaceDoTheSameNext) {
  for (const Kind& kind : kKinds) {
    const std::string calm = Undisturbed(kind);
    ZeroTraining probe = TrainingOf(kind);
    for (int rank = 0; rank < 3; ++rank) probe.Add();
    const int calls = probe.Group();
    for (int call = std::max(0, calls - 40); call < calls; ++call) {
      ZeroTraining training = TrainingOf(kind);
      for (int rank = 0; rank < 3; ++rank) training.Add();
      training.Group({.call = call, .victim = 2, .lucky = 0b010});
      training.Group();
      training.ExpectAll(calm, fmt::format("{}, call {} of {}", kind.name, call, calls));
    }
  }
}

// The leaver dies; of those that stay one has applied the step, and the other follows it.
TEST_F(NestedDeathOf, ALeaverIsForgottenByAll) {
  for (const Kind& kind : kKinds) {
    if (kind.zero == 0) continue;
    const std::string calm = Undisturbed(kind);
    for (int call = 2; call < 12; ++call) {
      ZeroTraining training = TrainingOf(kind);
      for (int rank = 0; rank < 3; ++rank) training.Add();
      training.members[0]->observer.leave_at = 1;
      training.Group({.call = call, .victim = 0, .lucky = 0b010});
      ASSERT_EQ(training.members.size(), 2u) << kind.name << ", call " << call;
      training.Group();
      training.ExpectAll(calm, fmt::format("{}, call {}", kind.name, call));
    }
  }
}

}  // namespace
}  // namespace lepton::worker
