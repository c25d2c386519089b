// Joiners get the state beside the steps of the others, and take their shards when they have all of
// it: the bits are the undisturbed run's whenever that is, whoever dies, leaves or joins meanwhile.
#include <fmt/format.h>
#include <glog/logging.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <set>

#include "tests/worker/train/counting_program.h"

namespace lepton::worker {
namespace {

using testing::Counting;
using testing::Death;
using ::testing::HasSubstr;
using testing::kShards;
using testing::Member;
using testing::ZeroTraining;

class Join : public ::testing::Test {
 protected:
  static constexpr uint64_t kSteps = 22, kJoinAt = 7;
  // Weights and Adam's moments are three times the gradient, a piece is half of it.
  static constexpr uint64_t kPieces = 6;
  static constexpr char kAdam[] = "optimizer: {name: adamw, lr: 0.01}, clip_norm: 0.5";

  void SetUp() override { FLAGS_minloglevel = 2; }

  // A state of some buckets, which does not go at once.
  static ZeroTraining Training(const std::string& more = kAdam) {
    const std::string buckets =
        more.find("gradients") == more.npos ? ", gradients: {bucket_bytes: 16384}" : "";
    return ZeroTraining(more + buckets, kSteps, 120);
  }
  static std::string Undisturbed(const std::string& more = kAdam) {
    ZeroTraining training = Training(more);
    training.Add();
    training.Group();
    return training.Weights(*training.members[0]);
  }
  // `ranks` train until step kJoinAt; then `joiners` more are there.
  static void UntilTheJoin(ZeroTraining& training, int ranks, int joiners = 1,
                           std::vector<Counting*>* counting = nullptr) {
    for (int rank = 0; rank < ranks; ++rank) {
      training.Add().observer.regroup_at = kJoinAt;
      if (counting != nullptr) counting->push_back(&Count(*training.members.back()));
    }
    training.Group();
    for (int rank = 0; rank < joiners; ++rank) {
      training.Add(/*has_state=*/false);
      if (counting != nullptr) counting->push_back(&Count(*training.members.back()));
    }
  }
  static std::set<uint64_t> StepsOf(const Counting& program) {
    std::set<uint64_t> steps;
    for (const auto& [step, shard] : program.computed) steps.insert(step);
    return steps;
  }
};

TEST_F(Join, TheStateGoesBesideTheStepsAndTheBitsAreTheUndisturbedRuns) {
  const std::string calm = Undisturbed();
  for (const auto& [ranks, joiners] : {std::pair{1, 1}, {2, 1}, {3, 1}, {1, 2}, {2, 3}}) {
    ZeroTraining training = Training();
    std::vector<Counting*> programs;
    UntilTheJoin(training, ranks, joiners, &programs);
    training.Group();
    training.ExpectAll(calm, fmt::format("{} and {}", ranks, joiners));
    std::multiset<std::pair<uint64_t, uint32_t>> computed;
    for (const Counting* program : programs) {
      computed.insert(program->computed.begin(), program->computed.end());
    }
    EXPECT_EQ(computed.size(), kSteps * kShards) << "a shard's step is computed once";
    for (int rank = ranks; rank < std::min(ranks + joiners, kShards); ++rank) {
      const std::set<uint64_t> steps = StepsOf(*programs[rank]);
      ASSERT_FALSE(steps.empty());
      EXPECT_EQ(*steps.begin(), kJoinAt + kPieces) << "joins when it has all pieces";
      EXPECT_EQ(steps.size(), kSteps - kJoinAt - kPieces);
    }
  }
}

TEST_F(Join, ASmallStateIsThereBeforeTheFirstStep) {
  ZeroTraining training = Training(std::string(kAdam) + ", gradients: {bucket_bytes: 1048576}");
  std::vector<Counting*> programs;
  UntilTheJoin(training, 2, 1, &programs);
  training.Group();
  training.ExpectAll(Undisturbed(), "small");
  EXPECT_EQ(*StepsOf(*programs[2]).begin(), kJoinAt);
}

// The state goes to all at once: those that have it must not lose it when its source dies.
TEST_F(Join, ADeathWhileASmallStateIsSentLosesItForNobody) {
  const std::string small = std::string(kAdam) + ", gradients: {bucket_bytes: 1048576}";
  const std::string calm = Undisturbed(small);
  // Places, weights, moments, the loop's state; and some steps.
  for (int call = 0; call < 16; ++call) {
    for (int victim = 0; victim < 3; ++victim) {
      for (const unsigned lucky : {0u, 7u}) {
        ZeroTraining training = Training(small);
        UntilTheJoin(training, 2);
        training.Group({.call = call, .victim = victim, .lucky = lucky});
        ASSERT_EQ(training.members.size(), 2u);
        training.Group();
        training.ExpectAll(calm, fmt::format("rank {} dies in call {}", victim, call));
      }
    }
  }
}

TEST_F(Join, EveryOptimizerAndFormOfTheSums) {
  for (const std::string more :
       {"optimizer: {name: sgd, lr: 0.05, momentum: 0.9}", "optimizer: {name: sgd, lr: 0.05}",
        "optimizer: {name: adam, lr: 0.01}, precision: bf16, accumulate: 2",
        "optimizer: {name: adamw, lr: 0.01}, clip_norm: 0.5, gradients: {bucket_bytes: 8192, "
        "compression: bf16}",
        "optimizer: {name: adamw, lr: 0.01}, local_sgd: {inner_steps: 2}"}) {
    const std::string calm = Undisturbed(more);
    ZeroTraining training = Training(more);
    std::vector<Counting*> programs;
    for (int rank = 0; rank < 2; ++rank) {
      training.Add().observer.regroup_at = kJoinAt + 1;  // the end of a round
      programs.push_back(&Count(*training.members.back()));
    }
    training.Group();
    training.Add(/*has_state=*/false);
    programs.push_back(&Count(*training.members.back()));
    training.Group();
    training.ExpectAll(calm, more);
    const std::set<uint64_t> steps = StepsOf(*programs[2]);
    ASSERT_FALSE(steps.empty()) << more;
    EXPECT_GT(*steps.begin(), kJoinAt + 1) << more;
  }
}

// What is remembered of matrices begins anew when shards move: equal weights, other bits.
TEST_F(Join, LowRankGradientsGoOnWithEqualWeights) {
  ZeroTraining training = Training(
      "optimizer: {name: adamw, lr: 0.01}, gradients: {bucket_bytes: 65536, compression: low_rank, "
      "rank: 2}");
  UntilTheJoin(training, 2);
  training.Group();
  training.ExpectAll(training.Weights(*training.members[0]), "low rank");
}

TEST_F(Join, AnyoneMayDieInAnyCallOfIt) {
  const std::string calm = Undisturbed();
  ZeroTraining probe = Training();
  UntilTheJoin(probe, 2);
  const int calls = probe.Group();
  ASSERT_GT(calls, 2 * static_cast<int>(kPieces));
  // The calls of the join come first: each is an end of its own.
  for (int call = 0; call < std::min(calls, 40); ++call) {
    for (const int victim : {0, 2}) {
      ZeroTraining training = Training();
      UntilTheJoin(training, 2);
      training.Group({.call = call, .victim = victim, .lucky = static_cast<unsigned>(call % 8)});
      ASSERT_EQ(training.members.size(), 2u);
      training.Group();
      training.ExpectAll(calm, fmt::format("call {}, rank {}", call, victim));
    }
  }
}

TEST_F(Join, ADeathBetweenTwoPiecesBeginsThemAnew) {
  const std::string calm = Undisturbed();
  for (const int victim : {0, 1}) {  // 0 sends, 1 is another
    for (const int message : {0, 3}) {
      ZeroTraining training = Training();
      UntilTheJoin(training, 2);
      training.Group({.victim = victim, .message = message});
      // Rank 1 sends nothing, and lives.
      ASSERT_EQ(training.members.size(), victim == 0 ? 2u : 3u);
      if (victim == 0) training.Group();
      training.ExpectAll(calm, fmt::format("rank {}, message {}", victim, message));
    }
  }
}

TEST_F(Join, WhoeverLeavesMeanwhileDoesNotTakeTheStateAlong) {
  const std::string calm = Undisturbed();
  for (const uint64_t step : {kJoinAt + 1, kJoinAt + 3}) {
    for (const int leavers : {1, 2}) {  // the second: all that have the state
      ZeroTraining training = Training();
      UntilTheJoin(training, 2);
      for (int rank = 0; rank < leavers; ++rank) training.members[rank]->observer.leave_at = step;
      training.Group();
      ASSERT_EQ(training.gone.size(), static_cast<size_t>(leavers));
      training.Group();
      training.ExpectAll(calm, fmt::format("{} leave at step {}", leavers, step));
    }
  }
}

TEST_F(Join, AnotherJoinerWaitsUntilTheFirstHasTheState) {
  const std::string calm = Undisturbed();
  ZeroTraining training = Training();
  UntilTheJoin(training, 2);
  for (const auto& member : training.members) {
    member->observer.on_computed = [observer = &member->observer](uint64_t step,
                                                                  nn::TrainingProgram&) {
      if (step > kJoinAt + 1) observer->regroup_at = step;  // from here on, until it is heard
    };
  }
  training.Group();
  EXPECT_EQ(training.members[0]->observer.committed, kJoinAt + kPieces + 1);
  for (const auto& member : training.members) {
    member->observer.on_computed = nullptr;
    member->observer.regroup_at = 1000;
  }
  training.Add(/*has_state=*/false);
  training.Group();
  training.ExpectAll(calm, "two joiners");
}

TEST_F(Join, TheRunMayEndFirst) {
  for (const uint64_t join_at : {kSteps - 2, kSteps - 1}) {
    ZeroTraining training = Training();
    for (int rank = 0; rank < 2; ++rank) training.Add().observer.regroup_at = join_at;
    training.Group();
    training.Add(/*has_state=*/false);
    training.Group();
    training.ExpectAll(Undisturbed(), fmt::format("joined at {}", join_at));
  }
}

// A bit of what it has got already: nobody's sums would show it before it computes.
TEST_F(Join, AJoinerWhoseBitsDifferIsRefusedByName) {
  const std::string calm = Undisturbed();
  for (const bool weights : {true, false}) {
    for (const int ranks : {1, 2}) {
      ZeroTraining training = Training();
      UntilTheJoin(training, ranks);
      Member& joiner = *training.members.back();
      // Of the weights when they are there; of the moments behind the last update.
      const uint64_t flip_behind = kJoinAt + (weights ? 3 : kPieces);
      joiner.observer.on_committed = [&](uint64_t step) {
        if (step != flip_behind) return;
        float& value =
            weights ? joiner.program->weights()[7] : joiner.program->optimizer_state()[7];
        value = std::bit_cast<float>(std::bit_cast<uint32_t>(value) ^ 1u);
      };
      training.Group();
      EXPECT_EQ(joiner.status.code(), StatusCode::kDataLoss) << joiner.status.ToString();
      ASSERT_TRUE(joiner.observer.diverged.has_value());
      EXPECT_EQ(joiner.observer.diverged->agreeing, ranks);
      const std::string first = joiner.program->parameters()[0].name;
      EXPECT_EQ(joiner.observer.diverged->tensor, weights ? first : "the optimizer's state");
      for (int rank = 0; rank < ranks; ++rank) {
        const Status& status = training.members[rank]->status;
        EXPECT_EQ(status.code(), StatusCode::kAborted) << status.ToString();
        EXPECT_EQ(training.members[rank]->observer.committed, kJoinAt + kPieces);
      }
      training.members.pop_back();
      training.Group();
      training.ExpectAll(calm, "without it");
    }
  }
}

// A step in which the joiner takes part with parts of a state is no state to go on from.
TEST_F(Join, AJoinerAloneHasNoState) {
  ZeroTraining training = Training();
  UntilTheJoin(training, 1);
  training.Group({.victim = 0, .message = 2});
  ASSERT_EQ(training.members.size(), 1u);
  training.Group();
  EXPECT_EQ(training.members[0]->status.code(), StatusCode::kInternal)
      << training.members[0]->status.ToString();
  EXPECT_THAT(training.members[0]->status.message(), HasSubstr("no rank has the training state"));
}

}  // namespace
}  // namespace lepton::worker
