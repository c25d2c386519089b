// Local SGD as tasks: checkpoints between rounds, models with statistics, where evaluations come.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "storage/checkpoints/checkpoint.h"
#include "tests/worker/train/fake_task.h"
#include "tests/worker/train/sample_data.h"
#include "worker/train/train_task.h"

namespace lepton::worker {
namespace {

using ::testing::ElementsAre;

class LocalSgdTask : public testing::TaskTest {
 protected:
  static spec::JobSpec SpecOf(std::string_view local) {
    return Spec(fmt::format(R"(
kind: train
dataset: {{name: blobs}}
model: {{hidden: [40]}}
optimizer: {{name: adamw, lr: 0.01}}
schedule: {{name: cosine, warmup_steps: 5}}
clip_norm: 1
batch_size: 20
epochs: 3
elastic: {{logical_shards: 4}}
resources: {{max_workers: 4}}
checkpoint: {{every_steps: 10}}
local_sgd: {{{}}}
)",
                            local));
  }
  std::vector<testing::Rank> Train(const spec::JobSpec& spec, wire::StartTask start, int ranks,
                                   uint64_t stop_at = 0) {
    return RunGang(RunTrain, spec, start, ranks, [&](testing::FakeTask& task) {
      task.backend = *collectives::FindBackend("native");
      if (task.start().rank() == 0) task.stop_at_checkpoint = stop_at;
    });
  }
  std::string Weights(const testing::Rank& rank) {
    EXPECT_TRUE(rank.status.ok()) << rank.status.ToString();
    return ModelOf(rank).weights_sha256;
  }
  wire::StartTask Blobs() {
    wire::StartTask start;
    start.set_kind("train");
    start.set_dataset_manifest(Import(testing::BlobsCsv(303, 3)));
    return start;
  }
};

// Training has 242 rows: 13 steps an epoch, 39 in all.
TEST_F(LocalSgdTask, CheckpointsComeAtTheNextRoundsEndAndResumeWithTheSameDigest) {
  const wire::StartTask start = Blobs();
  for (const std::string_view local :
       {"inner_steps: 4", "inner_steps: 4, outer_optimizer: {name: sgd, lr: 1, momentum: 0}"}) {
    const spec::JobSpec spec = SpecOf(local);
    const auto calm = Train(spec, start, 1);
    const std::string undisturbed = Weights(calm[0]);
    std::vector<uint64_t> steps;
    for (const auto& checkpoint : calm[0].task->checkpoints) steps.push_back(checkpoint.step());
    EXPECT_THAT(steps, ElementsAre(12, 20, 32));
    EXPECT_EQ(calm[0].task->result.steps(), 39u);
    for (const int ranks : {1, 3}) {
      const auto stopped = Train(spec, start, 4, 12);
      EXPECT_EQ(stopped[0].status.code(), StatusCode::kCancelled) << stopped[0].status.ToString();
      const wire::TaskCheckpoint& last = stopped[0].task->checkpoints.back();
      // The stop is seen in a round behind that checkpoint, which is written beside the rounds.
      EXPECT_GE(last.step(), 16u);
      EXPECT_LE(last.step(), 36u);
      EXPECT_EQ(last.step() % 4, 0u);
      wire::StartTask again = start;
      again.set_resume_checkpoint(last.manifest());
      EXPECT_EQ(Weights(Train(spec, again, ranks)[0]), undisturbed) << ranks << " ranks: " << local;
    }
  }
}

// The inner optimizer's state is of no use to the next round, and is not kept.
TEST_F(LocalSgdTask, ACheckpointHasTheWeightsAndTheOuterOptimizersState) {
  const wire::StartTask start = Blobs();
  const auto ranks = Train(SpecOf("inner_steps: 10"), start, 2);
  const auto checkpoint =
      storage::ReadCheckpoint(*objects_, ranks[0].task->checkpoints.at(0).manifest());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().ToString();
  std::vector<std::string> names;
  for (const auto& [name, values] : checkpoint->tensors) names.push_back(name);
  EXPECT_THAT(names, ElementsAre("outer_optimizer", "weights"));
  // Of a run without rounds it says what it lacks.
  wire::StartTask other = start;
  other.set_resume_checkpoint(ranks[0].task->checkpoints.at(0).manifest());
  const auto plain = Train(SpecOf("inner_steps: 0"), other, 1);
  EXPECT_THAT(plain[0].status.message(), ::testing::HasSubstr("it has 0 values of optimizer"));
}

// An epoch's evaluation comes at the end of the round that the epoch ends in.
TEST_F(LocalSgdTask, EvaluatesAtRoundsEnds) {
  const auto ranks = Train(SpecOf("inner_steps: 8"), Blobs(), 2);
  std::vector<uint64_t> evaluated;
  for (const auto& report : ranks[0].task->progress) {
    if (report.metrics().contains("validation/loss")) evaluated.push_back(report.step());
  }
  // Epochs end with steps 13, 26 and 39, checkpoints are due behind 10, 20 and 30.
  EXPECT_THAT(evaluated, ElementsAre(16, 24, 32, 39));
}

TEST_F(LocalSgdTask, ARungStopsAtARoundsEndSoThatTheNextGoesOnWithTheSameBits) {
  const wire::StartTask start = Blobs();
  spec::JobSpec spec = SpecOf("inner_steps: 8");
  const std::string whole = Weights(Train(spec, start, 1)[0]);
  wire::StartTask rung = start;
  rung.set_kind("trial");
  spec.labels["lepton.stop_at_epoch"] = "1";
  const auto first = Train(spec, rung, 2);
  EXPECT_EQ(first[0].task->result.steps(), 16u);
  rung.set_resume_checkpoint(first[0].task->result.last_checkpoint());
  spec.labels.clear();
  EXPECT_EQ(Weights(Train(spec, rung, 3)[0]), whole);
}

// Statistics of batch normalisation run along in each shard and meet in their mean.
TEST_F(LocalSgdTask, AModelWithStatisticsHasTheSameDigestForAnyNumberOfRanks) {
  wire::StartTask start;
  start.set_kind("train");
  start.set_dataset_manifest(
      Import(ReadFile(std::string(LEPTON_SOURCE_DIR) + "/scripts/data/digits.csv").value()));
  const spec::JobSpec spec = Spec(
      "{kind: train, dataset: {name: digits, image: {channels: 1, height: 8, width: 8}}, "
      "batch_size: 40, steps: 6, local_sgd: {inner_steps: 3}, "
      "model: {arch: resnet18, stem: small, stem_width: 8, widths: [8, 16], depths: [1, 1]}, "
      "elastic: {logical_shards: 4}, resources: {max_workers: 4}}");
  const auto one = Train(spec, start, 1);
  for (const int ranks : {2, 3}) EXPECT_EQ(Weights(Train(spec, start, ranks)[0]), Weights(one[0]));
  EXPECT_GT(one[0].metric("train/accuracy"), 0);
}

}  // namespace
}  // namespace lepton::worker
