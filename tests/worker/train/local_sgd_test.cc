// Local SGD: what a round computes, and that its bits are the same for any number of ranks, whoever
// dies, comes and goes.
#include <fmt/format.h>
#include <glog/logging.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "tests/worker/train/counting_program.h"

namespace lepton::worker {
namespace {

using testing::Counting;
using testing::Death;
using testing::kShards;
using testing::Member;
using testing::ZeroTraining;

constexpr uint64_t kSteps = 14;  // three rounds of four, and one of two

constexpr char kAdam[] = "optimizer: {name: adamw, lr: 0.01, decay: matrices}, clip_norm: 0.5";
constexpr char kSgd[] = "optimizer: {name: sgd, lr: 0.1, momentum: 0}";

class LocalSgd : public ::testing::Test {
 protected:
  void SetUp() override { FLAGS_minloglevel = 2; }

  static ZeroTraining Training(const std::string& local, const std::string& more = kAdam,
                               uint64_t steps = kSteps) {
    const std::string rounds = local.empty() ? "" : fmt::format("local_sgd: {{{}}}, ", local);
    return ZeroTraining(rounds + more, steps, 40);
  }
  static std::string Undisturbed(const std::string& local, const std::string& more = kAdam,
                                 int ranks = 1, uint64_t steps = kSteps) {
    ZeroTraining training = Training(local, more, steps);
    for (int rank = 0; rank < ranks; ++rank) training.Add();
    training.Group();
    const std::string weights = training.Weights(*training.members[0]);
    training.ExpectAll(weights, fmt::format("{} ranks", ranks));
    return weights;
  }
  static std::vector<float> Floats(const std::string& weights) {
    std::vector<float> values(weights.size() / sizeof(float));
    std::memcpy(values.data(), weights.data(), weights.size());
    return values;
  }
  static double Furthest(const std::string& one, const std::string& other) {
    const std::vector<float> a = Floats(one), b = Floats(other);
    double furthest = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      furthest = std::max(furthest, std::abs(double{a[i]} - double{b[i]}));
    }
    return furthest;
  }
};

constexpr char kRounds[] = "inner_steps: 4";
constexpr char kPlainRounds[] = "inner_steps: 4, outer_optimizer: {name: sgd, lr: 1, momentum: 0}";
// The shards' mean weights.
constexpr char kMean[] = "outer_optimizer: {lr: 1, momentum: 0}, inner_steps: ";

// A step of SGD is linear in its gradient: the mean of the shards' steps is the step of their mean,
// whatever the shards' sizes (16 rows in 4 shards, 13 in 4, 3 in 4, of which one is empty).
TEST_F(LocalSgd, RoundsOfOneStepOfSgdAndTheMeanAreDataParallelSgd) {
  for (const std::string& more :
       {std::string(kSgd), std::string(kSgd) + ", batch_size: 13",
        std::string(kSgd) + ", batch_size: 3",
        std::string(
            "optimizer: {name: sgd, lr: 0.1, momentum: 0, weight_decay: 0.1}, accumulate: 3")}) {
    const std::string plain = Undisturbed("", more);
    EXPECT_LT(Furthest(Undisturbed(std::string(kMean) + "1", more), plain), 2e-6) << more;
    EXPECT_GT(Furthest(Undisturbed(std::string(kMean) + "4", more), plain), 1e-4) << more;
  }
}

// With one shard the mean of a round is the shard's own weights, round after round.
TEST_F(LocalSgd, OneShardAloneIsPlainTrainingWhoseOptimizerBeginsAnew) {
  const std::string one = ", elastic: {logical_shards: 1}";
  const std::string plain = Undisturbed("", kSgd + one);
  EXPECT_LT(Furthest(Undisturbed(std::string(kMean) + "4", kSgd + one), plain), 1e-5);
  // The outer optimizer's momentum makes it another training.
  EXPECT_GT(Furthest(Undisturbed(kRounds, kSgd + one), plain), 1e-3);
  // One round is as long as the run, or Adam's moments begin anew with each.
  const std::string adam = Undisturbed("", kAdam + one);
  EXPECT_LT(Furthest(Undisturbed(std::string(kMean) + "100", kAdam + one), adam), 1e-5);
  EXPECT_GT(Furthest(Undisturbed(std::string(kMean) + "4", kAdam + one), adam), 1e-3);
}

TEST_F(LocalSgd, GivesTheSameBitsForAnyNumberOfRanks) {
  for (const std::string local :
       {kRounds, kPlainRounds, "inner_steps: 1", "inner_steps: 100",
        "inner_steps: 3, outer_optimizer: {name: sgd, lr: 1, momentum: 0.5}"}) {
    for (const std::string more :
         {kAdam, "optimizer: {name: sgd, lr: 0.1}, accumulate: 3, batch_size: 13",
          "optimizer: {name: adam}, precision: bf16, gradients: {compression: bf16, bucket_bytes: "
          "4096}"}) {
      const std::string one = Undisturbed(local, more);
      for (const int ranks : {2, 3, 4, 5}) {
        EXPECT_TRUE(Undisturbed(local, more, ranks) == one) << ranks << " ranks: " << local << more;
      }
    }
  }
}

TEST_F(LocalSgd, ARoundMeetsEveryRowOnceUnderItsStepsNumber) {
  ZeroTraining training = Training(kRounds, kAdam, 12);  // two epochs of six steps of 16 rows
  std::map<std::pair<uint64_t, uint32_t>, int> times;
  std::map<float, int> rows;
  std::vector<Counting*> programs;
  for (int rank = 0; rank < 3; ++rank) programs.push_back(&Count(training.Add()));
  training.Group();
  for (const Counting* program : programs) {
    for (const auto& computed : program->computed) ++times[computed];
    for (const float row : program->rows) ++rows[row];
  }
  EXPECT_EQ(times.size(), 12u * kShards);
  for (const auto& [computed, count] : times) EXPECT_EQ(count, 1);
  EXPECT_EQ(rows.size(), static_cast<size_t>(testing::kRows));
  for (const auto& [row, count] : rows) EXPECT_EQ(count, 2) << "once an epoch";
}

// Wherever a rank dies, and whichever of the others still got the result of the call that it died
// in.
TEST_F(LocalSgd, OneDeathAtAnyCallCostsNothing) {
  for (const std::string local : {kRounds, kPlainRounds}) {
    const std::string calm = Undisturbed(local);
    for (const int ranks : {2, 3, 4, 5}) {
      ZeroTraining counted = Training(local);
      for (int rank = 0; rank < ranks; ++rank) counted.Add();
      const int calls = counted.Group();
      ASSERT_GT(calls, 5);
      for (int call = 0; call < calls; ++call) {
        for (const unsigned lucky : {0u, 0b1010u, 0b0101u}) {
          ZeroTraining training = Training(local);
          for (int rank = 0; rank < ranks; ++rank) training.Add();
          training.Group({call, call % ranks, lucky});
          const std::string where =
              fmt::format("{} of {} dies in call {}, lucky {:b}", call % ranks, ranks, call, lucky);
          ASSERT_EQ(training.members.size(), static_cast<size_t>(ranks - 1)) << where;
          training.Group();
          training.ExpectAll(calm, where);
        }
      }
    }
  }
}

// What a survivor has computed in the open round it does not compute again, also when another rank
// joins in the dead one's place, and when a second one dies.
TEST_F(LocalSgd, ADeathCostsTheDeadRanksShardsOfTheOpenRoundAlone) {
  const std::string calm = Undisturbed(kRounds);
  for (const bool joins : {false, true}) {
    for (const bool twice : {false, true}) {
      ZeroTraining training = Training(kRounds);
      std::vector<Counting*> programs;
      for (int rank = 0; rank < 4; ++rank) programs.push_back(&Count(training.Add()));
      ZeroTraining probe = Training(kRounds);
      for (int rank = 0; rank < 4; ++rank) probe.Add();
      probe.members[0]->observer.regroup_at = 4;
      const int first_round = probe.Group();  // calls until the first round is behind
      ASSERT_EQ(probe.members[0]->observer.committed, 4u);
      training.Group({.call = first_round, .victim = 1});  // in the second round's sum
      if (joins) training.Add(/*has_state=*/false);
      // Places, and a joiner's four parts of the state, and then the sum.
      if (twice) training.Group({.call = joins ? 5 : 1, .victim = 2});
      training.Group();
      training.ExpectAll(calm, fmt::format("joins {}, twice {}", joins, twice));
      for (const int survivor : twice ? std::vector{0, 2} : std::vector{0, 2, 3}) {
        EXPECT_GE(programs[survivor]->computed.size(), kSteps) << "a shard's steps";
        std::map<std::pair<uint64_t, uint32_t>, int> times;
        for (const auto& computed : programs[survivor]->computed) ++times[computed];
        for (const auto& [computed, count] : times) {
          EXPECT_EQ(count, 1) << "rank " << survivor << " did step " << computed.first
                              << " of shard " << computed.second << " again";
        }
      }
    }
  }
}

TEST_F(LocalSgd, JoinersAndLeaversActBetweenRounds) {
  for (const std::string local : {kRounds, kPlainRounds}) {
    const std::string calm = Undisturbed(local);
    ZeroTraining training = Training(local);
    training.Add();
    for (const uint64_t end : {4u, 8u}) {
      for (const auto& member : training.members) member->observer.regroup_at = end;
      training.Group();
      for (const auto& member : training.members) EXPECT_EQ(member->observer.committed, end);
      training.Add(/*has_state=*/false);
    }
    training.members[0]->observer.leave_at = 9;  // told so within the third round
    training.Group();
    ASSERT_EQ(training.members.size(), 2u);
    EXPECT_EQ(training.members[0]->observer.committed, 12u);
    training.Group();
    training.ExpectAll(calm, local);
  }
}

TEST_F(LocalSgd, AStepThatIsNotFiniteEndsAllRanksBeforeTheRoundIsApplied) {
  ZeroTraining training = Training(kRounds);
  for (int rank = 0; rank < 3; ++rank) Count(training.Add()).bad_step = rank == 2 ? 5 : 1000;
  training.Group();
  for (const auto& member : training.members) {
    EXPECT_EQ(member->status.code(), StatusCode::kFailedPrecondition) << member->status.ToString();
    EXPECT_THAT(member->status.message(), ::testing::HasSubstr("gradient norm is nan at step 5"));
    EXPECT_EQ(member->observer.committed, 4u);
  }
}

}  // namespace
}  // namespace lepton::worker
