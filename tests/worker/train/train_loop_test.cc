// The loop around a program that only records what it is asked to do.
#include "worker/train/train_loop.h"
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

#include "tests/worker/train/thread_gang.h"

namespace lepton::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::ThreadCommunicator;
using testing::ThreadGang;

struct Call {
  uint64_t step;
  uint32_t shard;
  std::vector<float> rows;
};

// One weight; the gradient of a shard is the sum of its rows' only feature.
class RecordingProgram final : public nn::TrainingProgram {
 public:
  const nn::Signature& signature() const override { return signature_; }
  const std::vector<nn::ParameterView>& parameters() const override { return parameters_; }
  std::span<float> weights() override { return weights_; }
  std::span<float> gradients() override { return gradients_; }
  std::span<float> optimizer_state() override { return {}; }
  Result<nn::LossSum> ForwardBackward(const nn::Batch& batch, const nn::Targets&, uint64_t step,
                                      uint32_t shard) override {
    const std::span<const float> x = batch.inputs[0].span<const float>();
    calls.push_back({step, shard, {x.begin(), x.end()}});
    gradients_[0] = 0;
    for (const float value : x) gradients_[0] += value;
    if (step == failing_step) return Internal("out of luck");
    const double loss = step == bad_step ? bad_loss : double{gradients_[0]};
    return nn::LossSum{loss, static_cast<double>(batch.rows())};
  }
  double ApplyGradients(uint64_t, double scale) override {
    updates.push_back(gradients_[0] * scale);
    return norm;
  }
  double LearningRate(uint64_t) const override { return 0.5; }
  Status Forward(const nn::Batch&, std::span<float>) override { return Status::Ok(); }
  Result<nn::LossSum> Evaluate(const nn::Batch& batch, const nn::Targets&,
                               std::span<float> logits) override {
    std::fill(logits.begin(), logits.end(), 0.0f);
    evaluated += batch.rows();
    const auto rows = static_cast<double>(batch.rows());
    return nn::LossSum{0.25 * rows, rows};
  }

  std::vector<Call> calls;
  std::vector<double> updates;
  int64_t evaluated = 0;
  uint64_t bad_step = std::numeric_limits<uint64_t>::max();
  uint64_t failing_step = std::numeric_limits<uint64_t>::max();
  double bad_loss = std::nan("");
  double norm = 1;

 private:
  const nn::Signature signature_ = nn::Signature::Features(1, 1);
  const std::vector<nn::ParameterView> parameters_{{"w", {1}, 0, 1}};
  std::vector<float> weights_{0}, gradients_{0};
};

class RecordingObserver final : public TrainObserver {
 public:
  bool StopRequested() override { return stop_after > 0 && ++asked >= stop_after; }
  bool LeaveRequested() override {
    return computed >= leave_before_reduction_of || committed >= leave_behind;
  }
  void Computed(uint64_t step, nn::TrainingProgram&) override { computed = step; }
  void Committed(uint64_t step) override {
    committed = step;
    if (on_commit) on_commit(step);
  }
  void Progress(const TrainProgress& report) override { progress.push_back(report); }
  Result<storage::Digest> Checkpoint(uint64_t step, const Metrics& metrics) override {
    checkpoints.push_back(step);
    metrics_of[step] = metrics;
    return DigestOf(step);
  }
  CheckpointDone BeginCheckpoint(uint64_t step, const Metrics& metrics) override {
    if (!beside_steps) return TrainObserver::BeginCheckpoint(step, metrics);
    for (const auto& [before, done] : writing) EXPECT_TRUE(done) << before << ", " << step;
    begun.push_back(step);
    writing[step] = false;
    return (promises[step] = {}).get_future();
  }
  static storage::Digest DigestOf(uint64_t step) {
    return std::string(60, 'd') + std::to_string(1000 + step);
  }
  // Of what was begun: durable now, or never.
  void Finish(uint64_t step, const Status& status = Status::Ok()) {
    writing[step] = true;
    promises[step].set_value(status.ok() ? Result<storage::Digest>(DigestOf(step)) : status);
  }
  int stop_after = 0, asked = 0;
  // SIGTERM comes so that the reduction of a step tells the others, or just behind that.
  uint64_t leave_before_reduction_of = 1000, leave_behind = 1000;
  uint64_t computed = 0, committed = 0;
  std::vector<TrainProgress> progress;
  std::vector<uint64_t> checkpoints;
  std::map<uint64_t, Metrics> metrics_of;
  bool beside_steps = false;  // checkpoints are begun, and end when they are told to
  std::function<void(uint64_t)> on_commit;
  std::vector<uint64_t> begun;
  std::map<uint64_t, bool> writing;  // by step, whether it is done
  std::map<uint64_t, std::promise<Result<storage::Digest>>> promises;
};

struct LoopRank {
  RecordingProgram program;
  RecordingObserver observer;
  Status status;
  TrainOutcome outcome;
};

class TrainLoopTest : public ::testing::Test {
 protected:
  TrainLoopTest() {
    spec_.batch_size = 8;
    spec_.loss = "mse";
    spec_.checkpoint.every_steps = 5;
    spec_.elastic.logical_shards = 4;
    std::vector<int64_t> numbers(26);
    std::iota(numbers.begin(), numbers.end(), 0);
    auto train = std::make_shared<TableExamples>(
        numbers, std::vector<float>(numbers.begin(), numbers.end()), 1);
    train->SetLabels({}, std::vector<float>(26, 0.0f));
    data_.train = data_.train_plain = data_.validation = data_.test = train;
    data_.feature_names = {"a"};
  }

  // Ranks 0 .. size-1 of a gang, from `first_step` to `last_step`.
  std::vector<LoopRank> Run(int size, uint64_t last_step,
                            const std::function<void(int, LoopRank&)>& prepare = {},
                            uint64_t first_step = 0) {
    const auto gang = std::make_shared<ThreadGang>(size);
    std::vector<LoopRank> ranks(size);
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size; ++rank) {
      if (prepare) prepare(rank, ranks[rank]);
      threads.emplace_back([&, rank] {
        ThreadCommunicator communicator(gang, rank);
        const TrainRun run = {.spec = spec_,
                              .data = data_,
                              .program = ranks[rank].program,
                              .gang = communicator,
                              .first_step = first_step,
                              .last_step = last_step};
        Result<TrainOutcome> outcome = RunTrainLoop(run, ranks[rank].observer);
        ranks[rank].status = outcome.status();
        if (outcome.ok()) ranks[rank].outcome = *outcome;
      });
    }
    for (std::thread& thread : threads) thread.join();
    return ranks;
  }

  spec::JobSpec spec_;
  PreparedData data_;
};

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
    const auto before = Run(2, broken_at), after = Run(2, 11, {}, broken_at);
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
                          std::string(60, 'd') + "1015)"));
    EXPECT_EQ(rank.program.updates.size(), 16u);
  }
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
  const auto ranks = Run(1, 12, {}, /*first_step=*/10);
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

TEST_F(TrainLoopTest, StepsGoOnWhileACheckpointIsWrittenAndTheNextOneWaitsForIt) {
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

TEST_F(TrainLoopTest, CheckpointsAreEvaluatedWhereTheBestAreKept) {
  const auto best = Run(2, 14);  // epochs end at 4, 8 and 12
  spec_.checkpoint.keep_best.count = 0;
  const auto none = Run(2, 14);
  EXPECT_THAT(none[0].observer.checkpoints, ElementsAre(5, 10));
  EXPECT_EQ(none[0].observer.metrics_of.at(10).count("validation/loss"), 0u);
  EXPECT_EQ(best[0].observer.metrics_of.at(10).count("validation/loss"), 1u);
  EXPECT_LT(none[0].program.evaluated, best[0].program.evaluated);
}

TEST_F(TrainLoopTest, AStopWaitsForTheCheckpointThatIsWrittenAndWritesItsOwn) {
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

TEST_F(TrainLoopTest, ACheckpointThatFailsBesideTheStepsEndsItsRankAtOnce) {
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
TEST_F(TrainLoopTest, ACheckpointThatIsLostWithItsWriterIsDoneAgain) {
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
          if (step == 9) observer.Finish(observer.begun.back());
          if (step == 12) observer.Finish(10);
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
