// Checkpoints that are written beside the steps: who waits for them, and what becomes of those that
// fail or lose their writer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/worker/train/recording_loop.h"

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
      observer.beside_steps = true;
      observer.on_commit = [&observer](uint64_t step) {
        if (step == 8 && !observer.begun.empty()) observer.Finish(5);
        if (step == 14 && !observer.begun.empty()) observer.Finish(10);
      };
    });
    EXPECT_THAT(ranks[0].observer.begun, ElementsAre(5, 10));
    EXPECT_TRUE(ranks[0].observer.checkpoints.empty());
    for (const LoopRank& rank : ranks) {
      ASSERT_TRUE(rank.status.ok()) << rank.status.ToString();
      EXPECT_EQ(rank.outcome.last_checkpoint, RecordingObserver::DigestOf(10));
      EXPECT_EQ(rank.observer.begun.empty(), &rank != &ranks[0]);
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
    observer.beside_steps = true;
    if (rank == 0) observer.stop_after = 7;
    observer.on_commit = [&observer](uint64_t step) {
      if (step == 7 && !observer.begun.empty()) observer.Finish(5);
    };
  });
  EXPECT_EQ(ranks[0].status.code(), StatusCode::kCancelled);
  EXPECT_THAT(ranks[0].observer.begun, ElementsAre(5));
  EXPECT_THAT(ranks[0].observer.checkpoints, ElementsAre(7));
}

TEST_F(LoopCheckpoint, ACheckpointThatFailsBesideTheStepsEndsItsRankAtOnce) {
  const auto ranks = Run(1, 20, [](int, LoopRank& rank) {
    RecordingObserver& observer = rank.observer;
    observer.beside_steps = true;
    observer.on_commit = [&observer](uint64_t step) {
      if (step == 7) observer.Finish(5, ResourceExhausted("the disk is full"));
    };
  });
  EXPECT_EQ(ranks[0].status.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(ranks[0].status.message(), HasSubstr("checkpoint of step 5: the disk is full"));
  EXPECT_EQ(ranks[0].observer.committed, 7u);
}

// The rank that writes dies at step 7; who goes on writes another behind the next step, or behind
// the same one if that was the checkpoint's.
TEST_F(LoopCheckpoint, ACheckpointThatIsLostWithItsWriterIsDoneAgain) {
  for (const uint64_t dies_at : {5, 7}) {
    const auto both = std::make_shared<ThreadGang>(2);
    std::vector<LoopRank> ranks(2);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < 2; ++rank) {
      RecordingObserver& observer = ranks[rank].observer;
      observer.beside_steps = true;
      // In the step behind it, before its gradient is there.
      if (rank == 0) ranks[0].program.failing_step = dies_at;
      if (rank == 1) {
        observer.on_commit = [&observer](uint64_t step) {
          if (step == 9 && !observer.begun.empty()) observer.Finish(observer.begun.back());
          if (step == 12 && !observer.begun.empty()) observer.Finish(10);
        };
      }
      threads.emplace_back([&, rank] {
        ThreadCommunicator gang(both, rank);
        const auto alone = std::make_shared<ThreadGang>(1);
        ThreadCommunicator single(alone, 0);
        const TrainRun run = {.spec = spec_,
                              .data = data_,
                              .program = ranks[rank].program,
                              .gang = gang,
                              .last_step = 12};
        TrainLoop loop(run, ranks[rank].observer);
        ASSERT_TRUE(loop.Enter(gang, true).ok());
        ranks[rank].status = loop.Run().status();
        if (rank == 0) return;
        EXPECT_EQ(ranks[1].status.code(), StatusCode::kAborted) << ranks[1].status.ToString();
        ASSERT_TRUE(loop.Enter(single, true).ok());
        const Result<TrainOutcome> outcome = loop.Run();
        ASSERT_TRUE(outcome.ok()) << outcome.status().ToString();
        EXPECT_EQ(outcome->last_checkpoint, RecordingObserver::DigestOf(10));
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_THAT(ranks[0].observer.begun, ElementsAre(5));
    EXPECT_THAT(ranks[1].observer.begun, ElementsAre(dies_at == 5 ? 5 : 8, 10));
  }
}

}  // namespace
}  // namespace lepton::worker
