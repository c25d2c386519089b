// The loop around a program that only records what it is asked to do.
#include "worker/train/train_loop.h"
#include "worker/train/evaluation.h"
#include "worker/train/run_length.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <future>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <thread>

#include "tests/worker/train/recording_loop.h"

namespace lepton::worker {
namespace {

using recording::Call;
using recording::LoopRank;
using recording::RecordingObserver;
using recording::RecordingProgram;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::ThreadCommunicator;
using testing::ThreadGang;
using TrainLoopTest = recording::TrainLoopTest;

TEST_F(TrainLoopTest, AppliesTheMeanOfEveryBatchAlsoOfAShortOne) {
  for (const int size : {1, 2, 4}) {
    const auto ranks = Run(size, 4);  // an epoch: 8 + 8 + 8 + 2 rows
    for (const LoopRank& rank : ranks) {
      ASSERT_TRUE(rank.status.ok()) << rank.status.ToString();
      ASSERT_EQ(rank.program.updates.size(), 4u);
      double sum = 0;
      for (int step = 0; step < 4; ++step) sum += rank.program.updates[step] * (step < 3 ? 8 : 2);
      EXPECT_DOUBLE_EQ(sum, 25 * 26 / 2);
      EXPECT_EQ(rank.program.updates, ranks[0].program.updates);
    }
  }
}

TEST_F(TrainLoopTest, EachShardIsComputedOnceByItsRankUnderItsOwnNumber) {
  const auto ranks = Run(2, 4);
  std::multiset<float> rows;
  for (int rank = 0; rank < 2; ++rank) {
    ASSERT_GE(ranks[rank].program.calls.size(), 6u);
    for (const Call& call : ranks[rank].program.calls) {
      EXPECT_EQ(static_cast<int>(call.shard) / 2, rank);
      rows.insert(call.rows.begin(), call.rows.end());
    }
  }
  EXPECT_EQ(rows.size(), 26u);
  EXPECT_EQ(std::set<float>(rows.begin(), rows.end()).size(), 26u);
}

TEST_F(TrainLoopTest, AccumulatedPiecesAreTheShardsRowsUnderNumbersOfTheirOwn) {
  spec_.accumulate = 3;
  const auto pieces = Run(2, 4);
  spec_.accumulate = 1;
  const auto whole = Run(2, 4);
  for (int rank = 0; rank < 2; ++rank) {
    // The same rows at the same steps, in pieces; the sums of whole numbers are exact.
    EXPECT_EQ(pieces[rank].program.updates, whole[rank].program.updates);
    std::map<std::pair<uint64_t, uint32_t>, std::vector<float>> rows, expected;
    std::set<std::pair<uint64_t, uint32_t>> streams;
    for (const Call& call : pieces[rank].program.calls) {
      std::vector<float>& shard = rows[{call.step, call.shard / 3}];
      shard.insert(shard.end(), call.rows.begin(), call.rows.end());
      EXPECT_TRUE(streams.insert({call.step, call.shard}).second);
      EXPECT_LE(call.rows.size(), 1u) << "2 rows a shard in 3 pieces";
    }
    for (const Call& call : whole[rank].program.calls) {
      expected[{call.step, call.shard}] = call.rows;
    }
    EXPECT_EQ(rows, expected);
  }
}

// A run that is broken off within an epoch and resumed meets exactly the examples that the rest of
// the undisturbed run meets.
TEST_F(TrainLoopTest, AResumedRunGoesOnAtTheExactExample) {
  const auto undisturbed = Run(2, 11);
  for (const uint64_t broken_at : {1, 2, 5, 7}) {
    const auto before = Run(2, broken_at);
    const auto after = Run(2, 11, {}, broken_at, before[0].outcome.samples);
    for (int rank = 0; rank < 2; ++rank) {
      std::vector<Call> met = before[rank].program.calls;
      met.insert(met.end(), after[rank].program.calls.begin(), after[rank].program.calls.end());
      const std::vector<Call>& wanted = undisturbed[rank].program.calls;
      ASSERT_EQ(met.size(), wanted.size());
      for (size_t i = 0; i < met.size(); ++i) {
        EXPECT_EQ(met[i].step, wanted[i].step);
        EXPECT_EQ(met[i].shard, wanted[i].shard);
        EXPECT_EQ(met[i].rows, wanted[i].rows) << "step " << met[i].step;
      }
    }
  }
}

TEST_F(TrainLoopTest, CountsTheExamplesThatItsStepsUsed) {
  const SampleCount two_epochs{2 * 26, 2 * 25 * 26 / 2};
  ASSERT_EQ(SampleCount::OfEpochs(2, 26), two_epochs);
  ASSERT_EQ(SampleCount::OfEpochs(1, 7), (SampleCount{7, 21}));
  for (const int size : {1, 2, 3}) {
    for (const int64_t pieces : {1, 2}) {
      spec_.accumulate = pieces;
      for (const LoopRank& rank : Run(size, 8)) {
        ASSERT_TRUE(rank.status.ok()) << rank.status.ToString();
        EXPECT_EQ(rank.outcome.samples, two_epochs);
      }
      // Checkpoints say what their steps used, so that who goes on from one knows.
      const auto stopped = Run(size, 6);
      const SampleCount six = *stopped[0].outcome.samples;
      EXPECT_EQ(six.rows, 26u + 16u);
      const SampleCount five = *stopped[0].observer.samples_of.at(5);
      EXPECT_EQ(five.rows, 26u + 8u);
      const auto on = Run(size, 8, {}, 5, five);
      ASSERT_TRUE(on[0].status.ok()) << on[0].status.ToString();
      EXPECT_EQ(on[0].outcome.samples, two_epochs);
      EXPECT_EQ(on[0].observer.progress.back().samples, two_epochs);
    }
  }
}

TEST_F(TrainLoopTest, AnEpochThatDidNotUseEachExampleOnceIsAnError) {
  const SampleCount once = SampleCount::OfEpochs(1, 26);
  for (const int size : {1, 3}) {
    const auto wrong = Run(size, 12, {}, 4, SampleCount{once.rows, once.ids + 1});
    for (const LoopRank& rank : wrong) {
      EXPECT_EQ(rank.status.code(), StatusCode::kInternal);
      EXPECT_NE(rank.status.message().find("after epoch 2, 52 examples were used, whose numbers "
                                           "add to 651; each once an epoch are 52"),
                std::string::npos)
          << rank.status.ToString();
    }
  }
  // One step twice, or none of one, shows with the next.
  const auto twice = Run(2, 12, {}, 4, SampleCount{once.rows + 8, once.ids});
  EXPECT_EQ(twice[0].status.code(), StatusCode::kInternal);
  EXPECT_NE(twice[0].status.message().find("after step 5, 42 examples were used; there were 34"),
            std::string::npos)
      << twice[0].status.ToString();
  // What came before is not known: nothing is claimed.
  const auto ranks = Run(2, 12, {}, 4, std::nullopt);
  ASSERT_TRUE(ranks[0].status.ok()) << ranks[0].status.ToString();
  EXPECT_EQ(ranks[0].outcome.samples, std::nullopt);
  EXPECT_EQ(ranks[0].observer.progress.back().samples, std::nullopt);
  EXPECT_EQ(ranks[0].observer.samples_of.at(5), std::nullopt);
}

TEST_F(TrainLoopTest, AnExampleThatCannotBeReadEndsTheStepThatNeedsIt) {
  class Broken final : public Examples {
   public:
    int64_t rows() const override { return 26; }
    Status Fill(uint64_t, std::span<const int64_t> examples, BatchBuffer& out) const override {
      out.Resize(static_cast<int64_t>(examples.size()));
      std::fill_n(out.Floats("x"), examples.size(), 0.0f);
      out.values.assign(examples.size(), 0);
      for (const int64_t row : examples) {
        if (row == 17) return DataLoss("row 17 is gone");
      }
      return Status::Ok();
    }
    int64_t example_bytes() const override { return int64_t{1} << 20; }  // so there is a thread
  };
  const ExamplesPtr plain = data_.train;
  data_.train = std::make_shared<Broken>();
  const auto ranks = Run(2, 40);
  const bool first = ranks[0].status.code() == StatusCode::kDataLoss;
  const LoopRank& failed = ranks[first ? 0 : 1];
  EXPECT_THAT(failed.status.message(), HasSubstr("row 17 is gone"));
  EXPECT_EQ(ranks[first ? 1 : 0].status.code(), StatusCode::kAborted);
  EXPECT_LT(failed.program.updates.size(), 4u) << "every row is met within an epoch of 4 steps";
}

TEST_F(TrainLoopTest, TheLossIsTheMeanOverTheEpoch) {
  const auto ranks = Run(4, 4);
  EXPECT_DOUBLE_EQ(ranks[0].outcome.metrics.at("train/loss"), 12.5);
  EXPECT_DOUBLE_EQ(ranks[3].outcome.metrics.at("validation/loss"), 0.25);
}

TEST_F(TrainLoopTest, ALossThatIsNotANumberStopsAllRanksBeforeTheUpdate) {
  // Only rank 1 sees it; the reduced sum tells the others.
  const auto ranks = Run(2, 40, [](int rank, LoopRank& r) {
    if (rank == 1) r.program.bad_step = 16;
  });
  for (const LoopRank& rank : ranks) {
    EXPECT_EQ(rank.status.code(), StatusCode::kFailedPrecondition);
    EXPECT_THAT(rank.status.message(),
                HasSubstr("loss is nan at step 17; last good checkpoint: step 15 (" +
                          RecordingObserver::DigestOf(15) + ")"));
    EXPECT_EQ(rank.program.updates.size(), 16u);
  }
}

TEST_F(TrainLoopTest, ALabelBehindTheModelsClassesIsRefused) {
  auto examples = std::make_shared<TableExamples>(std::vector<int64_t>{0, 1},
                                                  std::vector<float>{0, 0}, /*features=*/1);
  examples->SetLabels({1, 2}, {});
  RecordingProgram program;  // of one output, so of two classes at most
  ThreadCommunicator gang(std::make_shared<ThreadGang>(1), 0);
  const Status status = Evaluate(program, *examples, 2, gang).status();
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("2 classes"));
}

TEST_F(TrainLoopTest, AnInfiniteLossOrGradientIsNamedAsSuch) {
  const auto infinite = Run(2, 40, [](int, LoopRank& r) {
    r.program.bad_step = 2;
    r.program.bad_loss = std::numeric_limits<double>::infinity();
  });
  EXPECT_THAT(infinite[1].status.message(),
              HasSubstr("loss is infinite at step 3; no checkpoint yet"));
  const auto gradient = Run(1, 40, [](int, LoopRank& r) { r.program.norm = std::nan(""); });
  EXPECT_THAT(gradient[0].status.message(), HasSubstr("gradient norm is nan at step 1;"));
}

TEST_F(TrainLoopTest, AStopSeenByOneRankEndsAllAtTheSameStepWithACheckpoint) {
  const auto ranks = Run(4, 40, [](int rank, LoopRank& r) {
    if (rank == 2) r.observer.stop_after = 7;
  });
  for (const LoopRank& rank : ranks) {
    EXPECT_EQ(rank.status.code(), StatusCode::kCancelled);
    EXPECT_EQ(rank.program.updates.size(), 7u);
  }
  EXPECT_THAT(ranks[0].observer.checkpoints, ElementsAre(5, 7));
  EXPECT_TRUE(ranks[2].observer.checkpoints.empty());
}

// One rank's SIGTERM comes in time for the reduction of step 7, the others' between that and the
// moment at which ranks part. Those have not said that they leave, so one of them still has to
// write what nobody else will have.
TEST_F(TrainLoopTest, RanksThatAreToldToLeaveBehindTheReductionDoNotGoWithoutACheckpoint) {
  constexpr int kRanks = 3;
  const auto gang = std::make_shared<ThreadGang>(kRanks);
  std::vector<LoopRank> ranks(kRanks);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kRanks; ++rank) {
    (rank == 0 ? ranks[0].observer.leave_before_reduction_of : ranks[rank].observer.leave_behind) =
        7;
    threads.emplace_back([&, rank] {
      ThreadCommunicator communicator(gang, rank, spec_.shards());
      const TrainRun run = {.spec = spec_,
                            .data = data_,
                            .program = ranks[rank].program,
                            .gang = communicator,
                            .last_step = 20};
      TrainLoop loop(run, ranks[rank].observer);
      ASSERT_TRUE(loop.Enter(communicator, true).ok());
      ranks[rank].status = loop.Run().status();
      // As an elastic rank that waits for the next group and is told to leave.
      if (ranks[rank].status.code() == StatusCode::kAborted) {
        EXPECT_TRUE(loop.Salvage().ok());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ranks[0].status.code(), StatusCode::kCancelled) << ranks[0].status.ToString();
  EXPECT_THAT(ranks[0].observer.checkpoints, ElementsAre(5));
  for (const int late : {1, 2}) {
    EXPECT_EQ(ranks[late].status.code(), StatusCode::kAborted) << ranks[late].status.ToString();
    EXPECT_THAT(ranks[late].observer.checkpoints, ElementsAre(7));
    EXPECT_TRUE(ranks[late].observer.metrics_of.at(7).empty()) << "those of step 5";
  }
}

TEST_F(TrainLoopTest, RanksThatAllLeaveAtOneStepWriteACheckpointFirst) {
  const auto ranks = Run(3, 40, [](int rank, LoopRank& r) {
    (rank == 1 ? r.observer.leave_behind : r.observer.leave_before_reduction_of) =
        rank == 1 ? 6 : 7;
  });
  for (const LoopRank& rank : ranks) {
    EXPECT_EQ(rank.status.code(), StatusCode::kCancelled) << rank.status.ToString();
    EXPECT_EQ(rank.program.updates.size(), 7u);
  }
  EXPECT_THAT(ranks[0].observer.checkpoints, ElementsAre(5, 7));
}

TEST_F(TrainLoopTest, AnErrorOfOneRankEndsTheOthersToo) {
  const auto ranks = Run(2, 40, [](int rank, LoopRank& r) {
    if (rank == 1) r.program.failing_step = 3;
  });
  EXPECT_EQ(ranks[1].status.message(), "step 4: out of luck");
  EXPECT_EQ(ranks[0].status.code(), StatusCode::kAborted);
}

TEST_F(TrainLoopTest, ResumesAtTheNextStepWithoutRepeatingCheckpoints) {
  const auto ranks = Run(1, 12, {}, /*first_step=*/10, std::nullopt);
  EXPECT_EQ(ranks[0].program.calls.front().step, 10u);
  EXPECT_EQ(ranks[0].program.updates.size(), 2u);
  EXPECT_TRUE(ranks[0].observer.checkpoints.empty());
  EXPECT_EQ(ranks[0].outcome.steps, 12u);
}

TEST_F(TrainLoopTest, EvaluatesAtEpochEndsTenStepsApartAtCheckpointsAndAtTheEnd) {
  spec_.checkpoint.every_steps = 1000;
  const auto ranks = Run(1, 30);  // epochs of 4 steps
  std::vector<uint64_t> evaluated;
  for (const TrainProgress& progress : ranks[0].observer.progress) {
    if (progress.metrics.contains("validation/loss")) evaluated.push_back(progress.step);
  }
  EXPECT_THAT(evaluated, ElementsAre(4, 16, 28, 30));
}

TEST_F(TrainLoopTest, TheRankThatIsFurthestRules) {
  const auto gang = std::make_shared<ThreadGang>(2);
  std::vector<Result<TrainOutcome>> outcomes(2, Internal("not run"));
  std::vector<std::vector<Call>> calls(2);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank) {
    threads.emplace_back([&, rank] {
      ThreadCommunicator communicator(gang, rank);
      RecordingProgram program;
      RecordingObserver observer;
      const TrainRun run = {.spec = spec_,
                            .data = data_,
                            .program = program,
                            .gang = communicator,
                            .first_step = static_cast<uint64_t>(5 * rank),
                            .first_samples = std::nullopt,
                            .last_step = 20};
      outcomes[rank] = RunTrainLoop(run, observer);
      calls[rank] = program.calls;
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int rank = 0; rank < 2; ++rank) {
    ASSERT_TRUE(outcomes[rank].ok()) << outcomes[rank].status().ToString();
    EXPECT_EQ(outcomes[rank]->steps, 20u);
    EXPECT_EQ(calls[rank].front().step, 5u);
  }
}

TEST_F(TrainLoopTest, LabelsSayWhereARungStops) {
  spec_.epochs = 10;
  EXPECT_EQ(TotalSteps(spec_, 26), 40u);
  EXPECT_EQ(*StopStep(spec_, 26), 40u);
  spec_.labels["lepton.stop_at_epoch"] = "3";
  EXPECT_EQ(*StopStep(spec_, 26), 12u);
  spec_.labels["lepton.stop_at_step"] = "7";
  EXPECT_EQ(*StopStep(spec_, 26), 7u);
  spec_.labels = {{"lepton.stop_at_step", "700"}};
  EXPECT_EQ(*StopStep(spec_, 26), 40u);
  spec_.labels = {{"lepton.stop_at_step", "7x"}};
  EXPECT_EQ(StopStep(spec_, 26).status().code(), StatusCode::kInvalidArgument);
  spec_.steps = 100;
  EXPECT_EQ(TotalSteps(spec_, 26), 100u);
}

// Those who do not lead have told of nothing: the first report of one that leads now is of what
// came since, not of its whole life.
TEST_F(TrainLoopTest, TheFirstReportOfANewLeaderIsOfTheLastSteps) {
  const auto gang = std::make_shared<ThreadGang>(2);
  std::vector<LoopRank> ranks(2);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 2; ++rank) {
    LoopRank& mine = ranks[rank];
    mine.program.bad_step = 1;  // of the first epoch, of 4 steps
    mine.program.bad_loss = 1e6;
    if (rank == 0) mine.observer.leave_behind = 13;  // the next one says so
    mine.observer.on_commit = [rank](uint64_t step) {
      if (rank == 1 && step == 15) std::this_thread::sleep_for(std::chrono::milliseconds(300));
    };
    threads.emplace_back([&, rank] {
      ThreadCommunicator communicator(gang, rank);
      const TrainRun run = {.spec = spec_,
                            .data = data_,
                            .program = mine.program,
                            .gang = communicator,
                            .last_step = 17};
      TrainLoop loop(run, mine.observer);
      ASSERT_TRUE(loop.Enter(communicator, /*has_state=*/true).ok());
      mine.status = loop.Run().status();
      if (rank == 0) return;
      EXPECT_EQ(mine.status.code(), StatusCode::kAborted) << mine.status.ToString();
      ThreadCommunicator alone(std::make_shared<ThreadGang>(1), 0);
      ASSERT_TRUE(loop.Enter(alone, /*has_state=*/true).ok());
      mine.status = loop.Run().status();
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(ranks[1].status.ok()) << ranks[1].status.ToString();
  const std::vector<TrainProgress>& told = ranks[1].observer.progress;
  ASSERT_FALSE(told.empty());
  EXPECT_EQ(told[0].step, 15u);
  EXPECT_LT(told[0].metrics.at("train/loss"), 1000);
  EXPECT_LT(told[0].samples_per_second, 100) << "8 samples in 0.3 s";
}

}  // namespace
}  // namespace lepton::worker
