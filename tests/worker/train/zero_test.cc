// A training state in slices has the bits of the whole one for any number of ranks, and takes less.
#include <gmock/gmock.h>

#include <algorithm>
#include <atomic>
#include <iostream>

#include "tests/worker/train/zero_stages.h"
#include "worker/train/zero_layout.h"

namespace lepton::worker {
namespace {

using ::testing::HasSubstr;
using testing::kAdam;
using testing::kShards;
using testing::Member;
using testing::ZeroTraining;

class ZeroBits : public testing::ZeroStages {};
INSTANTIATE_TEST_SUITE_P(Stages, ZeroBits, ::testing::ValuesIn(testing::kZeroCases),
                         testing::ZeroCaseName);

TEST_P(ZeroBits, GivesTheBitsOfTheWholeStateForAnyNumberOfRanks) {
  for (const std::string more :
       {"optimizer: {name: adamw, lr: 0.01}, clip_norm: 0.5",
        "optimizer: {name: adam, lr: 0.01}, clip_norm: 100, precision: bf16",
        "optimizer: {name: sgd, lr: 0.1, momentum: 0.9, weight_decay: 0.01}, accumulate: 3",
        "optimizer: {name: sgd, lr: 0.1, momentum: 0}, gradients: {bucket_bytes: 4096}",
        "optimizer: {name: adamw, decay: matrices}, gradients: {compression: bf16}"}) {
    if (stage() >= 2 && more.find("compression") != more.npos) continue;
    const std::string whole = Undisturbed(more);
    EXPECT_TRUE(Undisturbed(more, 0, 3) == whole) << "stage 0: " << more;
    for (const int ranks : {1, 2, 3, 4, 5}) {
      EXPECT_TRUE(Undisturbed(more, stage(), ranks) == whole) << ranks << " ranks: " << more;
    }
  }
}

// From stage 2 on the group adds up a round where its shards are a subtree of all; with every
// number of shards and ranks some rounds are, or none, or the last one is not full.
TEST_P(ZeroBits, RoundsThatTheGroupAddsUpDoNotShow) {
  for (const int shards : {1, 2, 3, 5, 6, 7, 8}) {
    const std::string more = fmt::format("elastic: {{logical_shards: {}}}, {}", shards, kAdam);
    const std::string whole = Undisturbed(more);
    for (const int ranks : {1, 2, 3, 4, 5}) {
      EXPECT_TRUE(Undisturbed(more, stage(), ranks) == whole)
          << ranks << " ranks, " << shards << " shards";
    }
  }
}

// From stage 2 on the pieces of one shard are several ranks'; a rank may have some of a shard,
// none, or rows in none of its own.
TEST_P(ZeroBits, PiecesOfAShardOnSeveralRanksDoNotShow) {
  for (const std::string more :
       {"accumulate: 2, optimizer: {name: adamw, lr: 0.01}, precision: bf16",
        "accumulate: 3, batch_size: 10, optimizer: {name: sgd, lr: 0.1, momentum: 0.9}",
        "accumulate: 2, elastic: {logical_shards: 3}, optimizer: {name: adam, lr: 0.01}",
        "accumulate: 5, elastic: {logical_shards: 1}, optimizer: {name: adam, lr: 0.01}",
        "accumulate: 2, model: {arch: resnet18, stem: small, stem_width: 8, widths: [8, 16], "
        "depths: [1, 1]}"}) {
    if (striped() && more.find("resnet") != more.npos) continue;
    ZeroTraining one = Training(0, more);
    one.Add();
    one.Group();
    const std::string whole = one.Weights(*one.members[0]);
    for (const int ranks : {1, 2, 3, 4, 5}) {
      ZeroTraining training = Training(more);
      for (int rank = 0; rank < ranks; ++rank) training.Add();
      training.Group();
      training.ExpectAll(whole, fmt::format("{} ranks: {}", ranks, more));
      EXPECT_EQ(training.members[0]->outcome.metrics.at("train/loss"),
                one.members[0]->outcome.metrics.at("train/loss"));
    }
  }
}

// Many layers, since a gradient that passes is one of a layer: 2.6 million parameters.
StateBytes MostBytes(int stage, int ranks, int accumulate = 1) {
  ZeroTraining training(
      fmt::format("parallel: {{zero: {}}}, gradients: {{bucket_bytes: 65536}}, accumulate: {}, {}",
                  stage, accumulate, kAdam),
      2, 256, 40);
  for (int rank = 0; rank < ranks; ++rank) training.Add();
  training.Group();
  StateBytes most;
  for (const auto& member : training.members) {
    const StateBytes& bytes = member->outcome.bytes;
    most.weights = std::max(most.weights, bytes.weights);
    most.gradients = std::max(most.gradients, bytes.gradients);
    most.optimizer = std::max(most.optimizer, bytes.optimizer);
    most.arena = std::max(most.arena, bytes.arena);
    most.packs = std::max(most.packs, bytes.packs);
    most.visiting = std::max(most.visiting, bytes.visiting);
  }
  std::cout << fmt::format(
      "stage {}, {} ranks, {} pieces: MB of weights {:.1f}, gradients {:.1f}, optimizer {:.1f}, "
      "arena "
      "{:.1f}, packs {:.1f}, visiting {:.1f}\n",
      stage, ranks, accumulate, static_cast<double>(most.weights) * 1e-6,
      static_cast<double>(most.gradients) * 1e-6, static_cast<double>(most.optimizer) * 1e-6,
      static_cast<double>(most.arena) * 1e-6, static_cast<double>(most.packs) * 1e-6,
      static_cast<double>(most.visiting) * 1e-6);
  return most;
}

TEST(ZeroBytes, FallWithTheRanksByTheStage) {
  FLAGS_minloglevel = 2;
  constexpr double kRounding = 1.1;  // whole blocks of 2^14 elements
  for (const int ranks : {3, 4, 5}) {
    const StateBytes whole = MostBytes(0, ranks), one = MostBytes(1, ranks),
                     two = MostBytes(2, ranks), three = MostBytes(3, ranks);
    const double share = 2.0 / ranks;
    const auto optimizer = static_cast<double>(whole.optimizer);
    EXPECT_LE(static_cast<double>(one.optimizer), kRounding * share * optimizer) << ranks;
    EXPECT_LE(static_cast<double>(two.optimizer), kRounding * share * optimizer) << ranks;
    EXPECT_GE(static_cast<double>(one.optimizer), share * optimizer) << "the mirror is there";
    EXPECT_EQ(one.gradients, whole.gradients);
    EXPECT_LE(three.optimizer, two.optimizer) << ranks;
    // Kernels' copies of the weights are gone with stage 2, the weights themselves with stage 3.
    EXPECT_GE(static_cast<double>(one.packs), 1.9 * static_cast<double>(one.weights)) << ranks;
    EXPECT_LE(static_cast<double>(two.packs), 0.1 * static_cast<double>(two.weights)) << ranks;
    EXPECT_EQ(three.packs, two.packs);
    EXPECT_EQ(two.weights, whole.weights);
    EXPECT_LE(static_cast<double>(three.weights),
              kRounding * share * static_cast<double>(whole.weights))
        << ranks;
    EXPECT_GE(static_cast<double>(three.weights), share * static_cast<double>(whole.weights))
        << "the mirror is there";
    EXPECT_LE(static_cast<double>(three.visiting), 0.3 * static_cast<double>(whole.weights))
        << ranks;
    // With as many shards as ranks or fewer nothing but the slices remains, and staging.
    if (ranks < kShards) continue;
    EXPECT_LE(static_cast<double>(two.gradients + two.arena),
              (share + 0.3) * static_cast<double>(whole.gradients + whole.arena))
        << ranks;
  }
}

// Nobody adds up a whole gradient of a shard's pieces: the owner of a part adds those of each. What
// it holds beside its two slices is the open shard's sum and one for each level of the tree.
TEST(ZeroBytes, PiecesTakeNoWholeGradient) {
  FLAGS_minloglevel = 2;
  for (const int ranks : {4, 5}) {
    const StateBytes whole = MostBytes(1, ranks, 3);
    for (const int stage : {2, 3}) {
      const StateBytes one = MostBytes(stage, ranks), pieces = MostBytes(stage, ranks, 3);
      EXPECT_LE(
          static_cast<double>(pieces.gradients),
          static_cast<double>(one.gradients) + 1.2 * static_cast<double>(whole.weights) / ranks)
          << stage << ", " << ranks;
      EXPECT_LE(static_cast<double>(pieces.gradients), 0.5 * static_cast<double>(whole.gradients))
          << stage << ", " << ranks;
    }
  }
}

// Passes everything on, but one update comes out wrong: as if the optimiser's state had changed by
// itself, or the host computed otherwise.
class WrongUpdate final : public nn::TrainingProgram {
 public:
  WrongUpdate(std::unique_ptr<nn::TrainingProgram> inner, uint64_t step)
      : inner_(std::move(inner)), step_(step) {}
  const nn::Signature& signature() const override { return inner_->signature(); }
  const std::vector<nn::ParameterView>& parameters() const override { return inner_->parameters(); }
  std::span<float> weights() override { return inner_->weights(); }
  std::span<float> gradients() override { return inner_->gradients(); }
  std::span<float> optimizer_state() override { return inner_->optimizer_state(); }
  Result<nn::LossSum> ForwardBackward(const nn::Batch& batch, const nn::Targets& targets,
                                      uint64_t step, uint32_t shard) override {
    return inner_->ForwardBackward(batch, targets, step, shard);
  }
  void WatchGradients(GradientReady ready) override { inner_->WatchGradients(std::move(ready)); }
  std::span<const float> gradient(size_t parameter) override { return inner_->gradient(parameter); }
  double ApplyGradients(uint64_t step, double scale) override {
    return inner_->ApplyGradients(step, scale);
  }
  int state_per_element() const override { return inner_->state_per_element(); }
  void ApplyPart(uint64_t step, double scale, double norm, const Part& part) override {
    inner_->ApplyPart(step, scale, norm, part);
    if (step + 1 != step_) return;
    (part.weights.empty() ? inner_->weights()[static_cast<size_t>(part.begin)] : part.weights[0]) +=
        1e-3f;
  }
  void FinishParts(double scale) override { inner_->FinishParts(scale); }
  int64_t weights_begin() const override { return inner_->weights_begin(); }
  void ReadWeights(int64_t begin, std::span<float> to) override { inner_->ReadWeights(begin, to); }
  void VisitWeights(nn::WeightSource* source, int64_t bucket_bytes) override {
    inner_->VisitWeights(source, bucket_bytes);
  }
  Status PassThrough() override { return inner_->PassThrough(); }
  Status AwaitForwards() override { return inner_->AwaitForwards(); }
  Status CollectWeights(const TakeWeights& take) override { return inner_->CollectWeights(take); }
  double LearningRate(uint64_t step) const override { return inner_->LearningRate(step); }
  Status Forward(const nn::Batch& batch, std::span<float> logits) override {
    return inner_->Forward(batch, logits);
  }
  Result<nn::LossSum> Evaluate(const nn::Batch& batch, const nn::Targets& targets,
                               std::span<float> logits) override {
    return inner_->Evaluate(batch, targets, logits);
  }

 private:
  const std::unique_ptr<nn::TrainingProgram> inner_;
  const uint64_t step_;
};

TEST_P(ZeroBits, BuddiesThatComputeOtherwiseEndTheJobBeforeAnybodyElseHasIt) {
  for (const int ranks : {2, 4}) {
    ZeroTraining training = Training();
    for (int rank = 0; rank < ranks; ++rank) training.Add();
    Member& wrong = *training.members[1];
    wrong.program = std::make_unique<WrongUpdate>(std::move(wrong.program), 3);
    training.Group();
    for (const auto& member : training.members) {
      EXPECT_EQ(member->status.code(), StatusCode::kDataLoss) << member->status.ToString();
      EXPECT_THAT(member->status.message(),
                  HasSubstr("do not hold the same parameters after step 3"));
      EXPECT_EQ(member->observer.committed, 2u);
      ASSERT_TRUE(member->observer.diverged.has_value());
      EXPECT_EQ(member->observer.diverged->agreeing, 0);
    }
  }
}

// A checkpoint is read once by each rank that meets, however many parts of it are the rank's.
TEST_P(ZeroBits, WhatTheRunBeginsWithIsReadOnce) {
  for (const int ranks : {1, 2, 3}) {
    ZeroTraining training = Training();
    std::atomic<int> reads = 0;
    std::atomic<int64_t> elements = 0;
    training.first_state = [&](std::span<const WantedState> wanted, const auto& go_on) {
      ++reads;
      for (const auto& [part, state] : wanted) {
        elements += part.size();
        std::fill(state.begin(), state.end(), 0.0f);
      }
      return go_on();
    };
    for (int rank = 0; rank < ranks; ++rank) training.Add();
    training.Group();
    training.ExpectAll(Undisturbed(), fmt::format("{} ranks", ranks));
    EXPECT_EQ(reads, ranks);
    const int64_t all = TrainedElements(training.members[0]->program->parameters());
    EXPECT_EQ(elements, std::min(ranks, 2) * all);
  }
}

// Whoever reads for long sees that it need not any more.
TEST_P(ZeroBits, WhoReadsWhatTheRunBeginsWithEndsWithTheGroup) {
  ZeroTraining training = Training();
  std::atomic<int> fails = 0, told = 0;
  training.first_state = [&](std::span<const WantedState>, const auto& go_on) -> Status {
    if (fails++ == 0) return DataLoss("a slice is torn");
    Status status;
    for (int i = 0; i < 3000 && status.ok(); ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      status = go_on();
    }
    told += status.code() == StatusCode::kAborted;
    return status;
  };
  for (int rank = 0; rank < 3; ++rank) training.Add();
  training.Group();
  EXPECT_EQ(told, 2);
}

}  // namespace
}  // namespace lepton::worker
