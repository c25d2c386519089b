// Checkpoints that are written beside the steps: who waits for them, and what becomes of those that
// fail or lose their writer.
#include <fmt/format.h>
#include <glog/logging.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/worker/train/recording_loop.h"
#include "tests/worker/train/zero_gang.h"

namespace lepton::worker {
namespace {

using recording::LoopRank;
using recording::RecordingObserver;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::ThreadCommunicator;
using testing::ThreadGang;

class LoopCheckpoint : public recording::TrainLoopTest {};

TEST_F(LoopCheckpoint, StepsGoOnWhileACheckpointIsWrittenAndTheNextOneWaitsForIt) {
  for (const int size : {1, 3}) {
    const auto ranks = Run(size, 14, [](int, LoopRank& rank) {
      RecordingObserver& observer = rank.observer;
      observer.at_once_from = 1000;
      observer.on_commit = [&observer](uint64_t step) {
        if (step == 8 && !observer.checkpoints.empty()) observer.Finish(5);
        if (step == 14 && !observer.checkpoints.empty()) observer.Finish(10);
      };
    });
    EXPECT_THAT(ranks[0].observer.checkpoints, ElementsAre(5, 10));
    for (const LoopRank& rank : ranks) {
      ASSERT_TRUE(rank.status.ok()) << rank.status.ToString();
      EXPECT_EQ(rank.outcome.last_checkpoint, RecordingObserver::DigestOf(10));
      EXPECT_EQ(rank.observer.checkpoints.empty(), &rank != &ranks[0]);
    }
  }
}

TEST_F(LoopCheckpoint, CheckpointsAreEvaluatedWhereTheBestAreKept) {
  const auto best = Run(2, 14);  // epochs end at 4, 8 and 12
  spec_.checkpoint.keep_best.count = 0;
  const auto none = Run(2, 14);
  EXPECT_THAT(none[0].observer.checkpoints, ElementsAre(5, 10));
  EXPECT_EQ(none[0].observer.metrics_of.at(10).count("validation/loss"), 0u);
  EXPECT_EQ(best[0].observer.metrics_of.at(10).count("validation/loss"), 1u);
  EXPECT_LT(none[0].program.evaluated, best[0].program.evaluated);
}

TEST_F(LoopCheckpoint, AStopWaitsForTheCheckpointThatIsWrittenAndWritesItsOwn) {
  const auto ranks = Run(2, 20, [](int rank, LoopRank& r) {
    RecordingObserver& observer = r.observer;
    observer.at_once_from = 7;
    if (rank == 0) observer.stop_after = 7;
    observer.on_commit = [&observer](uint64_t step) {
      if (step == 7 && !observer.checkpoints.empty()) observer.Finish(5);
    };
  });
  EXPECT_EQ(ranks[0].status.code(), StatusCode::kCancelled);
  EXPECT_THAT(ranks[0].observer.checkpoints, ElementsAre(5, 7));
}

// It has a few seconds, and an evaluation may need minutes.
TEST_F(LoopCheckpoint, AStopWritesWithoutAnEvaluation) {
  for (const int64_t every : {3, 1000}) {
    for (const bool all_leave : {false, true}) {
      spec_.checkpoint.every_steps = every;
      const auto ranks = Run(2, 20, [all_leave](int, LoopRank& rank) {
        if (all_leave) rank.observer.leave_before_reduction_of = 3;
        if (!all_leave) rank.observer.stop_after = 3;
      });
      EXPECT_EQ(ranks[0].status.code(), StatusCode::kCancelled);
      EXPECT_THAT(ranks[0].observer.checkpoints, ElementsAre(3));
      for (const LoopRank& rank : ranks) EXPECT_EQ(rank.program.evaluated, 0);
    }
  }
}

TEST_F(LoopCheckpoint, ACheckpointThatFailsBesideTheStepsEndsItsRankAtOnce) {
  const auto ranks = Run(1, 20, [](int, LoopRank& rank) {
    RecordingObserver& observer = rank.observer;
    observer.at_once_from = 1000;
    observer.on_commit = [&observer](uint64_t step) {
      if (step == 7)
        observer.Finish(5, RecordingObserver::kManifest, ResourceExhausted("the disk is full"));
    };
  });
  EXPECT_EQ(ranks[0].status.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(ranks[0].status.message(), HasSubstr("checkpoint of step 5: the disk is full"));
  EXPECT_EQ(ranks[0].observer.committed, 7u);
}

// A rank dies in a step, before its gradient is there; the other goes on alone.
class LoopWithoutItsLeader : public LoopCheckpoint {
 protected:
  // What rank 0 has begun to write is lost with it. The other's ends when `on_commit` says so.
  void Run(uint64_t dies_at, uint64_t last_step,
           const std::function<void(RecordingObserver&, uint64_t)>& on_commit) {
    const auto both = std::make_shared<ThreadGang>(2);
    ranks_ = std::vector<LoopRank>(2);
    ranks_[0].program.failing_step = dies_at;
    RecordingObserver& observer = ranks_[1].observer;
    observer.on_commit = [&](uint64_t step) { on_commit(observer, step); };
    std::vector<std::thread> threads;
    for (int rank = 0; rank < 2; ++rank) {
      ranks_[rank].observer.at_once_from = 1000;
      threads.emplace_back([&, rank] {
        ThreadCommunicator gang(both, rank);
        const auto alone = std::make_shared<ThreadGang>(1);
        ThreadCommunicator single(alone, 0);
        const TrainRun run = {.spec = spec_,
                              .data = data_,
                              .program = ranks_[rank].program,
                              .gang = gang,
                              .last_step = last_step};
        TrainLoop loop(run, ranks_[rank].observer);
        ASSERT_TRUE(loop.Enter(gang, true).ok());
        ranks_[rank].status = loop.Run().status();
        if (rank == 0) return;
        EXPECT_EQ(ranks_[1].status.code(), StatusCode::kAborted) << ranks_[1].status.ToString();
        ASSERT_TRUE(loop.Enter(single, true).ok());
        const Result<TrainOutcome> outcome = loop.Run();
        ASSERT_TRUE(outcome.ok()) << outcome.status().ToString();
        ranks_[1].outcome = *outcome;
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  std::vector<LoopRank> ranks_;
};

// Who goes on writes another behind the next step, or behind the same one if that was the
// checkpoint's.
TEST_F(LoopWithoutItsLeader, ACheckpointThatIsLostWithItsWriterIsDoneAgain) {
  for (const uint64_t dies_at : {5, 7}) {
    Run(dies_at, 12, [](RecordingObserver& observer, uint64_t step) {
      if (step == 9 && !observer.checkpoints.empty()) observer.Finish(observer.checkpoints.back());
      if (step == 12 && !observer.checkpoints.empty()) observer.Finish(10);
    });
    EXPECT_EQ(ranks_[1].outcome.last_checkpoint, RecordingObserver::DigestOf(10));
    EXPECT_THAT(ranks_[0].observer.checkpoints, ElementsAre(5));
    EXPECT_THAT(ranks_[1].observer.checkpoints, ElementsAre(dies_at == 5 ? 5 : 8, 10));
  }
}

// At an epoch's end, and within one: the step behind it had begun.
TEST_F(LoopWithoutItsLeader, TheLossOfACheckpointThatIsDoneAgainIsThatOfTheStepsBeforeIt) {
  for (const uint64_t step : {4, 6}) {
    spec_.checkpoint.every_steps = static_cast<int64_t>(step);
    Run(/*dies_at=*/step, step + 1, [step](RecordingObserver& observer, uint64_t now) {
      if (now == step + 1) observer.Finish(step);
    });
    EXPECT_THAT(ranks_[1].observer.checkpoints, ElementsAre(step));
    ASSERT_FALSE(ranks_[1].observer.progress.empty());
    const TrainProgress& first = ranks_[1].observer.progress.front();
    EXPECT_EQ(first.step, step);
    EXPECT_GT(first.metrics.at("train/loss"), 5) << "of " << step << " steps; the mean is 12.5";
  }
}

// Each rank its own, of which there are more than elements; then rank 0 the manifest.
TEST_F(LoopCheckpoint, RanksWriteSlicesAndTheManifestComesBehindTheLastOfThem) {
  slice_bytes_ = 1;
  const auto ranks = Run(3, 14, [](int number, LoopRank& rank) {
    RecordingObserver& observer = rank.observer;
    observer.at_once_from = 10;
    observer.on_commit = [&observer, number](uint64_t step) {
      if (step == 6 + static_cast<uint64_t>(number)) observer.Finish(5, number);
      EXPECT_TRUE(step > 9 || observer.checkpoints.empty()) << step;
      if (step == 10 && number == 0) {
        // The reduction of step 9 was the first to tell that all of it is there.
        EXPECT_THAT(observer.checkpoints, ElementsAre(5));
        observer.Finish(5);
      }
    };
  });
  int64_t elements = 0;
  for (int rank = 0; rank < 3; ++rank) {
    const LoopRank& one = ranks[static_cast<size_t>(rank)];
    ASSERT_TRUE(one.status.ok()) << one.status.ToString();
    EXPECT_EQ(one.outcome.last_checkpoint, RecordingObserver::DigestOf(10));
    EXPECT_THAT(one.observer.begun_slices, ElementsAre(std::pair(5u, rank), std::pair(10u, rank)));
    elements += one.observer.elements;
  }
  EXPECT_EQ(elements, 2);  // of a program with one weight, twice
  const auto& manifests = ranks[0].observer.manifests;
  ASSERT_EQ(manifests.size(), 2u);
  EXPECT_THAT(manifests[0].second,
              ElementsAre(RecordingObserver::DigestOf(5, 0), RecordingObserver::DigestOf(5, 1),
                          RecordingObserver::DigestOf(5, 2)));
  EXPECT_TRUE(ranks[1].observer.manifests.empty());
}

TEST_F(LoopCheckpoint, ASliceThatFailsEndsItsRankWithTheErrorAndTheOthersWithItsNumber) {
  slice_bytes_ = 1;
  // Beside the steps, and where all wait for it.
  for (const bool waits : {false, true}) {
    const auto ranks = Run(2, 20, [waits](int number, LoopRank& rank) {
      RecordingObserver& observer = rank.observer;
      observer.at_once_from = 1000;
      observer.on_commit = [&observer, number, waits](uint64_t step) {
        if (step != (waits ? 10u : 7u)) return;
        observer.Finish(5, number, number == 1 ? ResourceExhausted("the disk is full") : Status());
      };
    });
    EXPECT_EQ(ranks[1].status.code(), StatusCode::kResourceExhausted);
    EXPECT_THAT(ranks[1].status.message(), HasSubstr("checkpoint of step 5: the disk is full"));
    EXPECT_EQ(ranks[0].status.code(), StatusCode::kAborted) << ranks[0].status.ToString();
    EXPECT_TRUE(ranks[0].observer.checkpoints.empty());
  }
}

// Its slice was durable with its worker, and nobody knows whether it got any further.
TEST(SlicedCheckpoint, AnotherFollowsWhereARankIsGoneThatWroteASliceOfTheNewest) {
  FLAGS_minloglevel = 2;
  constexpr uint64_t kMet = 6;  // behind the manifest of step 4
  for (const int stage : {0, 1, 3}) {
    for (const int lost : {-1, 0, 2}) {
      testing::ZeroTraining training(
          fmt::format("parallel: {{zero: {}}}, checkpoint: {{every_steps: 4}}", stage), 12, 230);
      for (int rank = 0; rank < 3; ++rank) training.Add().observer.regroup_at = kMet;
      training.Group();
      if (lost >= 0) training.members.erase(training.members.begin() + lost);
      training.Group();
      training.ExpectAll(training.Weights(*training.members[0]), "with checkpoints");
      const auto& whole = training.board->whole;
      EXPECT_EQ(whole.contains(kMet + 1), lost >= 0) << stage << ", " << lost;
      EXPECT_EQ(whole.size(), lost >= 0 ? 3u : 2u) << "steps 4 and 8, and another once";
      EXPECT_EQ(training.board->most_slices, 3u);
    }
  }
}

// All live that wrote slices. One of them alone has heard of all digests when the group breaks, for
// a rank dies that wrote none: it joined later, or the state is too small for so many slices.
TEST(SlicedCheckpoint, WhoAloneHasHeardOfAllSlicesGoesBackToItsOwn) {
  FLAGS_minloglevel = 2;
  struct Case {
    int stage, hidden, layers;
    bool joins;
    size_t slices;
  };
  for (const Case& one : {Case{0, 8, 1, false, 2}, Case{0, 230, 2, true, 3},
                          Case{1, 230, 2, true, 3}, Case{3, 230, 2, true, 3}}) {
    const auto meet = [&] {
      testing::ZeroTraining training(
          fmt::format("parallel: {{zero: {}}}, gradients: {{bucket_bytes: 1048576}}, "
                      "checkpoint: {{every_steps: 2}}",
                      one.stage),
          7, one.hidden, one.layers);
      for (int rank = 0; rank < 3; ++rank) training.Add().observer.regroup_at = 3;
      training.Group();
      // The checkpoint of step 2 is on its way.
      EXPECT_TRUE(training.board->whole.empty());
      if (one.joins) training.Add(/*has_state=*/false);
      return training;
    };
    testing::ZeroTraining calm = meet();
    const int calls = calm.Group();
    calm.ExpectAll(calm.Weights(*calm.members[0]), "calm");
    const int victim = static_cast<int>(calm.members.size()) - 1;
    for (int call = 0; call < calls; ++call) {
      const std::string where = fmt::format("stage {}, {} ranks, rank {} dies in call {} of {}",
                                            one.stage, victim + 1, victim, call, calls);
      testing::ZeroTraining training = meet();
      training.Group({.call = call, .victim = victim, .lucky = 0b0010});
      EXPECT_GE(training.board->most_slices, training.board->whole.empty() ? 0 : one.slices);
      training.Group();
      training.ExpectAll(calm.Weights(*calm.members[0]), where);
      training.board->ExpectAsIn(*calm.board, where);
      if (HasFailure()) return;
    }
  }
}

// The group broke as it met, and one rank alone has not heard that the checkpoint is begun anew, by
// fewer ranks: what it still writes is cut otherwise.
TEST(SlicedCheckpoint, ASliceOfAnotherCutIsNoPartOfIt) {
  FLAGS_minloglevel = 2;
  for (const int stage : {0, 1, 3}) {
    for (int call = 0; call < 12; ++call) {
      testing::ZeroTraining training(
          fmt::format("parallel: {{zero: {}}}, gradients: {{bucket_bytes: 1048576}}, "
                      "checkpoint: {{every_steps: 2}}",
                      stage),
          5, 230);
      for (int rank = 0; rank < 4; ++rank) training.Add().observer.regroup_at = 2;
      training.Group();  // the checkpoint of step 2 is on its way
      training.members.pop_back();
      training.Group({.call = call, .victim = testing::Death::kNobody, .lucky = 0b011});
      training.Group();
      const std::string where = fmt::format("stage {}, call {}", stage, call);
      training.ExpectAll(training.Weights(*training.members[0]), where);
      EXPECT_EQ(training.board->whole.count(2), 1u) << where;
      if (HasFailure()) return;
    }
  }
}

// A stop: its own checkpoint, in slices, at once.
TEST_F(LoopCheckpoint, AStopWaitsForAllSlices) {
  slice_bytes_ = 1;
  const auto ranks = Run(2, 20, [](int rank, LoopRank& r) {
    RecordingObserver& observer = r.observer;
    observer.at_once_from = 7;
    if (rank == 0) observer.stop_after = 7;
    observer.on_commit = [&observer, rank](uint64_t step) {
      if (step != 7) return;
      observer.Finish(5, rank);
      observer.at_once_from = 0;
    };
  });
  for (const LoopRank& rank : ranks) {
    EXPECT_EQ(rank.status.code(), StatusCode::kCancelled) << rank.status.ToString();
  }
  EXPECT_THAT(ranks[0].observer.checkpoints, ElementsAre(5, 7));
}

}  // namespace
}  // namespace lepton::worker
