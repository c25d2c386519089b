// A training state in slices: who joins gets them stripe by stripe beside the steps of the others.
// The bits are the undisturbed run's whenever that is, whoever dies, leaves or joins meanwhile.
#include <gmock/gmock.h>

#include <bit>
#include <map>
#include <set>

#include "tests/worker/train/zero_stages.h"
#include "worker/train/zero_layout.h"

namespace lepton::worker {
namespace {

using testing::Death;
using ::testing::HasSubstr;
using testing::Member;
using testing::ZeroTraining;

class ZeroJoin : public ::testing::TestWithParam<int> {
 protected:
  static constexpr uint64_t kSteps = 12, kJoinAt = 3;
  static constexpr char kAdam[] = "optimizer: {name: adamw, lr: 0.01}, clip_norm: 0.5";
  static constexpr int kHidden = 500;  // 16 blocks of the norm

  void SetUp() override { FLAGS_minloglevel = 2; }
  static int stage() { return GetParam(); }
  static ZeroTraining Training(const std::string& more, int stage) {
    return ZeroTraining(
        fmt::format("parallel: {{zero: {}}}, gradients: {{bucket_bytes: 65536}}, resources: "
                    "{{max_workers: 2}}, {}",
                    stage, more),
        kSteps, kHidden);
  }
  static ZeroTraining Training(const std::string& more = kAdam) { return Training(more, stage()); }
  static std::string Undisturbed(const std::string& more = kAdam) {
    ZeroTraining training = Training(more, 0);
    training.Add();
    training.Group();
    return training.Weights(*training.members[0]);
  }
  // `ranks` train until step kJoinAt; then `joiners` more are there.
  static void UntilTheJoin(ZeroTraining& training, int ranks, int joiners = 1) {
    for (int rank = 0; rank < ranks; ++rank) training.Add().observer.regroup_at = kJoinAt;
    training.Group();
    for (int rank = 0; rank < joiners; ++rank) training.Add(/*has_state=*/false);
  }
  // Of the optimiser's state, behind each step.
  using Held = std::map<uint64_t, uint64_t>;
  static void Watch(Member& member, Held& held) {
    member.observer.on_committed = [&](uint64_t step) {
      held[step] = member.loop->bytes().optimizer;
    };
  }
};
INSTANTIATE_TEST_SUITE_P(Stages, ZeroJoin, ::testing::Values(1, 2, 3));

TEST_P(ZeroJoin, SlicesGoBesideTheStepsAndTheBitsAreTheUndisturbedRuns) {
  const std::string calm = Undisturbed();
  for (const auto& [ranks, joiners] : {std::pair{1, 1}, {2, 1}, {3, 1}, {4, 1}, {1, 2}, {2, 3}}) {
    ZeroTraining training = Training();
    UntilTheJoin(training, ranks, joiners);
    std::vector<Held> held(training.members.size());
    for (size_t rank = 0; rank < held.size(); ++rank) Watch(*training.members[rank], held[rank]);
    training.Group();
    const std::string where = fmt::format("{} and {}", ranks, joiners);
    training.ExpectAll(calm, where);
    for (const Held& its : held) {
      ASSERT_EQ(its.size(), kSteps - kJoinAt) << where << ": they go on in one group";
    }
    // First the weights, where they are not a part of what is held.
    const Held& joiner = held.back();
    EXPECT_EQ(joiner.at(kJoinAt + 1) == 0, stage() < 3) << where;
    const uint64_t slices = joiner.at(kSteps);
    EXPECT_GT(slices, 0u);
    std::set<uint64_t> sizes;
    for (const auto& [step, bytes] : joiner) sizes.insert(bytes);
    EXPECT_GE(sizes.size(), stage() < 3 ? 3u : 2u) << where << ": in pieces";
    // As if they had met all at once.
    ZeroTraining together = Training();
    for (int rank = 0; rank < ranks + joiners; ++rank) together.Add();
    together.Group();
    for (size_t rank = 0; rank < held.size(); ++rank) {
      EXPECT_EQ(held[rank].at(kSteps), together.members[rank]->outcome.bytes.optimizer) << where;
    }
  }
}

TEST_P(ZeroJoin, EveryOptimizerAndFormOfTheSums) {
  for (const std::string more :
       {"optimizer: {name: sgd, lr: 0.05, momentum: 0.9}", "optimizer: {name: sgd, lr: 0.05}",
        "optimizer: {name: adam, lr: 0.01}, precision: bf16, accumulate: 2",
        "optimizer: {name: adamw, lr: 0.01, decay: matrices}, elastic: {logical_shards: 3}"}) {
    const std::string calm = Undisturbed(more);
    for (const auto& [ranks, joiners] : {std::pair{1, 1}, {2, 1}, {2, 2}}) {
      ZeroTraining training = Training(more);
      UntilTheJoin(training, ranks, joiners);
      training.Group();
      training.ExpectAll(calm, fmt::format("{} and {}: {}", ranks, joiners, more));
    }
  }
}

// With one loss in each pair of buddies nothing is lost, of which pair ever.
TEST_P(ZeroJoin, AnyoneMayDieInAnyCallOfIt) {
  const std::string calm = Undisturbed();
  constexpr int kRanks = 2;
  ZeroTraining probe = Training();
  UntilTheJoin(probe, kRanks);
  const int calls = probe.Group();
  // All of the join; and far enough behind it.
  const int last = std::min(calls, stage() == 3 ? 120 : 60);
  for (int call = 0; call < last; ++call) {
    const int victim = call % (kRanks + 1);
    const unsigned lucky = 1u << (victim + 1 + call / 3 % 2) % (kRanks + 1);  // one that lives
    ZeroTraining training = Training();
    UntilTheJoin(training, kRanks);
    training.Group({.call = call, .victim = victim, .lucky = lucky});
    ASSERT_EQ(training.members.size(), 2u);
    training.Group();
    training.ExpectAll(calm, fmt::format("call {}, rank {}, lucky {}", call, victim, lucky));
  }
}

TEST_P(ZeroJoin, AnyoneMayDieBeforeAnyMessageOfIt) {
  const std::string calm = Undisturbed();
  for (const int ranks : {2, 3}) {
    for (int victim = 0; victim <= ranks; ++victim) {
      for (int message = ranks % 2; message < 12; message += 2) {
        ZeroTraining training = Training();
        UntilTheJoin(training, ranks);
        training.Group({.victim = victim, .message = message});
        if (training.members.size() <= static_cast<size_t>(ranks)) training.Group();
        training.ExpectAll(
            calm, fmt::format("rank {} of {} and one, message {}", victim, ranks, message));
      }
    }
  }
}

// What no slice has comes before the first step: a joiner that was on the point of getting it has
// the rest of the loop's state already.
TEST_P(ZeroJoin, AnyoneMayDieWhileStatisticsAreShared) {
  const std::string more = std::string(kAdam) +
                           ", batch_size: 8, elastic: {logical_shards: 2}, model: {arch: resnet18, "
                           "stem: small, stem_width: 8, widths: [8, 16], depths: [1, 1]}";
  const std::string calm = Undisturbed(more);
  for (int call = 0; call < 10; ++call) {
    for (const unsigned lucky : {0u, 0b010u, 0b110u}) {
      ZeroTraining training = Training(more);
      UntilTheJoin(training, 2);
      training.Group({.call = call, .victim = 0, .lucky = lucky});
      ASSERT_EQ(training.members.size(), 2u);
      training.Group();
      training.ExpectAll(calm, fmt::format("call {}, lucky {}", call, lucky));
    }
  }
}

// Another takes the place of the one that died while ranks joined, and of one that has none yet.
TEST_P(ZeroJoin, AnotherComesForOneThatDiedMeanwhile) {
  const std::string calm = Undisturbed();
  for (const int victim : {0, 2}) {
    for (const int call : {4, 12, 20}) {
      ZeroTraining training = Training();
      UntilTheJoin(training, 2);
      training.Group({.call = call, .victim = victim});
      ASSERT_EQ(training.members.size(), 2u);
      training.Add(/*has_state=*/false);
      training.Group();
      training.ExpectAll(calm, fmt::format("rank {} in call {}", victim, call));
    }
  }
}

TEST_P(ZeroJoin, WhoeverLeavesMeanwhileHandsOver) {
  const std::string calm = Undisturbed();
  for (const uint64_t step : {kJoinAt + 1, kJoinAt + 2, kJoinAt + 3}) {
    for (const unsigned leavers : {0b001u, 0b011u, 0b100u, 0b110u}) {
      ZeroTraining training = Training();
      UntilTheJoin(training, 2);
      for (int rank = 0; rank < 3; ++rank) {
        if ((leavers >> rank & 1) != 0) training.members[rank]->observer.leave_at = step;
      }
      training.Group();
      ASSERT_EQ(training.gone.size(), static_cast<size_t>(std::popcount(leavers)));
      training.Group();
      training.ExpectAll(calm, fmt::format("{:b} leave at step {}", leavers, step));
    }
  }
}

TEST_P(ZeroJoin, AnotherJoinerWaitsUntilTheFirstHasItsSlices) {
  const std::string calm = Undisturbed();
  ZeroTraining training = Training();
  UntilTheJoin(training, 2);
  Held held;
  Watch(*training.members.back(), held);
  for (const auto& member : training.members) {
    member->observer.on_computed = [observer = &member->observer](uint64_t step,
                                                                  nn::TrainingProgram&) {
      if (step > kJoinAt + 1) observer->regroup_at = step;  // from here on, until it is heard
    };
  }
  training.Group();
  const uint64_t third = held.rbegin()->second;
  EXPECT_GT(held.size(), 2u);
  EXPECT_LT(held.rbegin()->first, kSteps);
  for (const auto& member : training.members) {
    member->observer.on_computed = nullptr;
    member->observer.regroup_at = 1000;
  }
  ZeroTraining together = Training();
  for (int rank = 0; rank < 3; ++rank) together.Add();
  together.Group();
  EXPECT_EQ(third, together.members.back()->outcome.bytes.optimizer);
  training.Add(/*has_state=*/false);
  training.Group();
  training.ExpectAll(calm, "two joiners");
}

TEST_P(ZeroJoin, TheRunMayEndFirst) {
  const std::string calm = Undisturbed();
  for (const uint64_t join_at : {kSteps - 2, kSteps - 1}) {
    ZeroTraining training = Training();
    for (int rank = 0; rank < 2; ++rank) training.Add().observer.regroup_at = join_at;
    training.Group();
    training.Add(/*has_state=*/false);
    training.Group();
    training.ExpectAll(calm, fmt::format("joined at {}", join_at));
  }
}

// Each step's, so that some are begun while stripes have gone over and others have not.
TEST_P(ZeroJoin, CheckpointsMeanwhileAreThoseOfTheUndisturbedRun) {
  const std::string more = std::string(kAdam) + ", checkpoint: {every_steps: 1}";
  ZeroTraining calm = Training(more, 0);
  calm.Add();
  calm.Group();
  // The one on its way may be lost with a writer, just as the joiner comes: a step that is over
  // must not be done again before that one has the weights.
  for (const auto& [ranks, dies] : {std::pair{1, false}, {2, false}, {2, true}, {3, true}}) {
    ZeroTraining training = Training(more);
    UntilTheJoin(training, ranks);
    if (dies) training.members.erase(training.members.begin());
    training.Group();
    const std::string where = fmt::format("{} ranks, of which {} died", ranks, dies ? 1 : 0);
    training.ExpectAll(calm.Weights(*calm.members[0]), where);
    training.board->ExpectAsIn(*calm.board, where);
    for (uint64_t step = kJoinAt + 1; step < kSteps; ++step) {
      EXPECT_TRUE(training.board->whole.contains(step)) << step << ": " << where;
    }
  }
}

// Of a joiner's slice, as soon as it has some: its mirror has other bits.
TEST_P(ZeroJoin, ABitThatFlipsInWhatHasComeIsNamed) {
  if (stage() == 3) GTEST_SKIP() << "its weights are not where a test reaches them";
  ZeroTraining training = Training();
  UntilTheJoin(training, 1);
  Member& joiner = *training.members.back();
  joiner.observer.on_computed = [&](uint64_t step, nn::TrainingProgram& program) {
    if (step != kJoinAt + 4) return;
    float& value = program.weights()[7];
    value = std::bit_cast<float>(std::bit_cast<uint32_t>(value) ^ 1u);
  };
  training.Group();
  for (const auto& member : training.members) {
    EXPECT_EQ(member->status.code(), StatusCode::kDataLoss) << member->status.ToString();
    EXPECT_EQ(member->observer.committed, kJoinAt + 3);
  }
  ASSERT_TRUE(joiner.observer.diverged.has_value());
  EXPECT_EQ(joiner.observer.diverged->tensor, joiner.program->parameters()[0].name);
}

}  // namespace
}  // namespace lepton::worker
