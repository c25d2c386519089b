// Ranks that hold other parameters than their peers: found in the same step, named, and nothing of
// it applied.
#include "worker/train/divergence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <numeric>
#include <optional>
#include <thread>

#include "tests/worker/train/thread_gang.h"
#include "worker/train/parameter_digest.h"
#include "worker/train/step_tail.h"
#include "worker/train/train_loop.h"

namespace lepton::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::ThreadCommunicator;
using testing::ThreadGang;

void FlipBit(float& value, int bit) {
  value = std::bit_cast<float>(std::bit_cast<uint32_t>(value) ^ (1u << bit));
}

TEST(ParameterDigest, AnyNumberThatDiffersMakesAnotherDigest) {
  for (const size_t size : {1u, 31u, 32u, 33u, 1000u, (1u << 18) + 1u, 700'000u}) {
    std::vector<float> values(size);
    std::iota(values.begin(), values.end(), -3.0f);
    const uint64_t right = DigestOf(values);
    EXPECT_EQ(DigestOf(values), right);
    for (size_t i = 0; i < 64; ++i) {
      float& value = values[i * 2'654'435'761u % size];
      const int bit = static_cast<int>(i % 32);
      FlipBit(value, bit);
      EXPECT_NE(DigestOf(values), right) << size << " bit " << bit;
      FlipBit(value, bit);
    }
    EXPECT_EQ(DigestOf(values), right);
    values.push_back(0);
    EXPECT_NE(DigestOf(values), right) << "a zero more";
  }
  EXPECT_NE(DigestOf(std::vector<float>{0.0f}), DigestOf(std::vector<float>{-0.0f}));
}

TEST(ParameterDigest, SignsThatFlipTogetherDoNotHideEachOther) {
  std::vector<float> values(4096, 1.0f);
  const uint64_t right = DigestOf(values);
  for (size_t other = 1; other < 512; ++other) {
    FlipBit(values[0], 31);
    FlipBit(values[other], 31);
    EXPECT_NE(DigestOf(values), right) << other;
    FlipBit(values[0], 31);
    FlipBit(values[other], 31);
  }
}

TEST(CountDigests, TheMajorityIsRight) {
  struct Case {
    std::vector<uint64_t> digests;
    std::vector<int> counted, odd;
    int agreeing;
  };
  const Case cases[] = {
      {{7}, {}, {}, 1},
      {{7, 7, 7}, {}, {}, 3},
      {{7, 8, 7}, {}, {1}, 2},
      {{8, 7, 7}, {}, {0}, 2},
      {{7, 8}, {}, {0, 1}, 0},
      {{7, 8, 9}, {}, {0, 1, 2}, 0},
      {{7, 7, 8, 8}, {}, {0, 1, 2, 3}, 0},
      {{7, 9, 7, 8, 7}, {}, {1, 3}, 3},
      {{1, 7, 8, 7, 1}, {1, 2, 3}, {2}, 2},
      {{1, 7, 1, 7, 1}, {1, 3}, {}, 2},
  };
  for (const Case& one : cases) {
    const Census census = CountDigests(one.digests, one.counted);
    EXPECT_EQ(census.odd, one.odd);
    EXPECT_EQ(census.agreeing, one.agreeing);
    EXPECT_EQ(census.agree(), one.odd.empty());
    EXPECT_EQ(census.IsOdd(census.right), census.agreeing == 0);
  }
}

TEST(StepTail, SumsOverRanksAreExact) {
  constexpr int kRanks = 5;
  std::vector<float> sum(TailSize(kRanks), -0.0f);
  std::vector<uint64_t> digests;
  SampleCount used;
  for (int rank = 0; rank < kRanks; ++rank) {
    digests.push_back(0x9E3779B97F4A7C15u * static_cast<uint64_t>(rank + 1));
    if (rank == 3) digests.back() = ~uint64_t{0};
    std::vector<float> tail(sum.size());
    const SampleCount samples{7u + static_cast<uint64_t>(rank), ~uint64_t{0} / 6 * 5 - rank};
    used += samples;
    WriteTail(tail, Split({1e9 + rank, 3.0}), rank,
              {{rank == 1, rank < 2, true}, samples, digests.back()});
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += tail[i];
  }
  const StepSums sums = ReadTail(sum);
  EXPECT_EQ(sums.digests, digests);
  EXPECT_EQ(sums.samples, used);
  EXPECT_EQ(sums.stop, 1);
  EXPECT_EQ(sums.leave, 2);
  EXPECT_EQ(sums.regroup, 5);
  EXPECT_NEAR(sums.loss.sum, 5e9 + 10, 1);
  EXPECT_EQ(sums.loss.count, 15);
}

// Two tensors; each update adds to both.
class TwoTensors final : public nn::TrainingProgram {
 public:
  const nn::Signature& signature() const override { return signature_; }
  const std::vector<nn::ParameterView>& parameters() const override { return parameters_; }
  std::span<float> weights() override { return weights_; }
  std::span<float> gradients() override { return gradients_; }
  std::span<float> optimizer_state() override { return {}; }
  Result<nn::LossSum> ForwardBackward(const nn::Batch& batch, const nn::Targets&, uint64_t,
                                      uint32_t) override {
    std::fill(gradients_.begin(), gradients_.end(), 1.0f);
    return nn::LossSum{1, static_cast<double>(batch.rows())};
  }
  double ApplyGradients(uint64_t, double) override {
    for (float& weight : weights_) weight += 1;
    ++updates;
    return 1;
  }
  double LearningRate(uint64_t) const override { return 0.5; }
  Status Forward(const nn::Batch&, std::span<float>) override { return Status::Ok(); }
  Result<nn::LossSum> Evaluate(const nn::Batch& batch, const nn::Targets&,
                               std::span<float> logits) override {
    std::fill(logits.begin(), logits.end(), 0.0f);
    return nn::LossSum{1, static_cast<double>(batch.rows())};
  }
  uint64_t updates = 0;

 private:
  const nn::Signature signature_ = nn::Signature::Features(1, 1);
  const std::vector<nn::ParameterView> parameters_{{"first", {3}, 0, 3}, {"second", {5}, 3, 5}};
  std::vector<float> weights_ = std::vector<float>(8, 1.0f), gradients_ = weights_;
};

class FlippingObserver final : public TrainObserver {
 public:
  bool StopRequested() override { return false; }
  Status Computed(uint64_t step, nn::TrainingProgram& program) override {
    if (step == flip_at) FlipBit(program.weights()[4], 3);
    return {};
  }
  void Committed(uint64_t step) override {
    if (step == flip_after) FlipBit(program->weights()[1], 0);
  }
  void Diverged(const Divergence& divergence) override { found = divergence; }
  void Progress(const TrainProgress& progress) override {
    if (progress.metrics.contains("validation/loss")) evaluated.push_back(progress.step);
  }
  CheckpointDone BeginSlice(uint64_t, int, const Slices&) override { return Done(); }
  CheckpointDone BeginManifest(const CheckpointPoint&,
                               const std::vector<storage::Digest>&) override {
    return Done();
  }
  CheckpointDone BeginCheckpoint(const CheckpointPoint& point, const Slices&) override {
    checkpoints.push_back(point.step);
    return Done();
  }
  TwoTensors* program = nullptr;
  uint64_t flip_at = 0, flip_after = 0;
  std::vector<uint64_t> evaluated, checkpoints;
  std::optional<Divergence> found;

 private:
  static CheckpointDone Done() {
    std::promise<Result<storage::Digest>> done;
    done.set_value(std::string(64, 'd'));
    return done.get_future();
  }
};

struct DivergenceRank {
  TwoTensors program;
  FlippingObserver observer;
  Status status;
};

// In a group of `size`; with `go_on` rank 0 then goes on alone.
std::vector<DivergenceRank> RunRanks(int size,
                                     const std::function<void(int, FlippingObserver&)>& prepare,
                                     bool go_on = false) {
  spec::JobSpec spec;
  spec.batch_size = 8;
  spec.loss = "mse";
  spec.checkpoint.every_steps = 4;
  spec.elastic.logical_shards = 2;  // fewer than ranks: those without one are heard too
  std::vector<int64_t> numbers(16);
  std::iota(numbers.begin(), numbers.end(), 0);
  auto train = std::make_shared<TableExamples>(numbers, std::vector<float>(16, 1.0f), 1);
  train->SetLabels({}, std::vector<float>(16, 0.0f));
  PreparedData data;
  data.train = data.train_plain = data.validation = data.test = train;
  const auto gang = std::make_shared<ThreadGang>(size);
  std::vector<DivergenceRank> ranks(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    DivergenceRank& mine = ranks[static_cast<size_t>(rank)];
    mine.observer.program = &mine.program;
    prepare(rank, mine.observer);
    threads.emplace_back([&, rank] {
      ThreadCommunicator communicator(gang, rank);
      const TrainRun run = {.spec = spec,
                            .data = data,
                            .program = mine.program,
                            .gang = communicator,
                            .last_step = 10};
      TrainLoop loop(run, mine.observer);
      ASSERT_TRUE(loop.Enter(communicator, /*has_state=*/true).ok());
      mine.status = loop.Run().status();
      if (!go_on || rank > 0) return;
      EXPECT_EQ(mine.status.code(), StatusCode::kAborted) << mine.status.ToString();
      ThreadCommunicator alone(std::make_shared<ThreadGang>(1), 0);
      ASSERT_TRUE(loop.Enter(alone, /*has_state=*/true).ok());
      mine.status = loop.Run().status();
    });
  }
  for (std::thread& thread : threads) thread.join();
  return ranks;
}

TEST(DivergedRank, IsFoundInTheStepThatItsBitFlipsInAndNobodyAppliesIt) {
  const auto ranks = RunRanks(3, [](int rank, FlippingObserver& observer) {
    if (rank == 1) observer.flip_at = 6;
  });
  EXPECT_EQ(ranks[1].status.code(), StatusCode::kDataLoss);
  EXPECT_THAT(ranks[1].status.message(),
              HasSubstr("not those of 2 of the 3 ranks at step 6: second"));
  ASSERT_TRUE(ranks[1].observer.found.has_value());
  EXPECT_EQ(ranks[1].observer.found->tensor, "second");
  EXPECT_EQ(ranks[1].observer.found->step, 6u);
  EXPECT_EQ(ranks[1].observer.found->agreeing, 2);
  for (const int rank : {0, 2}) {
    EXPECT_EQ(ranks[rank].status.code(), StatusCode::kAborted) << "goes on without it";
    EXPECT_THAT(ranks[rank].status.message(), HasSubstr("rank 1 of 3 holds other parameters"));
    EXPECT_FALSE(ranks[rank].observer.found.has_value());
  }
  for (const DivergenceRank& rank : ranks) EXPECT_EQ(rank.program.updates, 5u);
}

TEST(DivergedRank, BehindTheUpdateIsFoundInTheNextStep) {
  const auto ranks = RunRanks(3, [](int rank, FlippingObserver& observer) {
    if (rank == 2) observer.flip_after = 6;
  });
  EXPECT_THAT(ranks[2].status.message(), HasSubstr("at step 7: first differs"));
  for (const DivergenceRank& rank : ranks) EXPECT_EQ(rank.program.updates, 6u);
}

TEST(DivergedRank, AfterTheLastStepDoesNotBecomeTheModel) {
  const auto ranks = RunRanks(3, [](int rank, FlippingObserver& observer) {
    if (rank == 0) observer.flip_after = 10;
  });
  EXPECT_EQ(ranks[0].status.code(), StatusCode::kDataLoss);
  EXPECT_EQ(ranks[1].status.code(), StatusCode::kAborted);
}

// Checkpoints at 4 and 8, evaluated as at the first epoch's end and at the run's.
TEST(DivergedRank, WhatItHelpedToMeasureIsMeasuredAgain) {
  struct Case {
    uint64_t flip_after;
    std::vector<uint64_t> evaluated, checkpoints;
  };
  for (const Case& one : {Case{6, {2, 4, 8, 10}, {4, 8}}, Case{8, {2, 4, 8, 8, 10}, {4, 8, 8}},
                          Case{10, {2, 4, 8, 10, 10}, {4, 8}}}) {
    const auto ranks = RunRanks(
        3,
        [&one](int rank, FlippingObserver& observer) {
          if (rank == 2) observer.flip_after = one.flip_after;
        },
        /*go_on=*/true);
    EXPECT_TRUE(ranks[0].status.ok()) << ranks[0].status.ToString();
    EXPECT_EQ(ranks[2].status.code(), StatusCode::kDataLoss);
    EXPECT_EQ(ranks[0].observer.evaluated, one.evaluated);
    EXPECT_EQ(ranks[0].observer.checkpoints, one.checkpoints);
  }
}

TEST(DivergedRank, WithoutAMajorityAllFailAndNameTheCheckpoint) {
  const auto ranks = RunRanks(2, [](int rank, FlippingObserver& observer) {
    if (rank == 1) observer.flip_at = 6;
  });
  for (const DivergenceRank& rank : ranks) {
    EXPECT_EQ(rank.status.code(), StatusCode::kDataLoss);
    EXPECT_THAT(rank.status.message(), HasSubstr("no majority does: second differs; last good "
                                                 "checkpoint: step 4"));
    ASSERT_TRUE(rank.observer.found.has_value());
    EXPECT_EQ(rank.observer.found->agreeing, 0);
  }
}

}  // namespace
}  // namespace lepton::worker
