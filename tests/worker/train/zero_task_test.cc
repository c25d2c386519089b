// A training state in slices, as tasks: checkpoints across stages, models with statistics.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/worker/train/fake_task.h"
#include "tests/worker/train/sample_data.h"
#include "worker/train/train_task.h"

namespace lepton::worker {
namespace {

class ZeroTaskTest : public testing::TaskTest {
 protected:
  static spec::JobSpec SpecOf(int stage) {
    return Spec(fmt::format(R"(
kind: train
dataset: {{name: blobs}}
model: {{hidden: [400, 400]}}
gradients: {{bucket_bytes: 65536}}
optimizer: {{name: adamw, lr: 0.01}}
clip_norm: 1
batch_size: 20
epochs: 2
elastic: {{logical_shards: 4}}
resources: {{max_workers: 4}}
checkpoint: {{every_steps: 5}}
parallel: {{zero: {}}}
)",
                            stage));
  }
  std::vector<testing::Rank> Train(int stage, wire::StartTask start, int ranks,
                                   uint64_t stop_at = 0) {
    return RunGang(RunTrain, SpecOf(stage), start, ranks, [&](testing::FakeTask& task) {
      task.backend = *collectives::FindBackend("native");
      if (task.start().rank() == 0) task.stop_at_checkpoint = stop_at;
    });
  }
  std::string Weights(const testing::Rank& rank) {
    EXPECT_TRUE(rank.status.ok()) << rank.status.ToString();
    return ModelOf(rank).weights_sha256;
  }
};

TEST_F(ZeroTaskTest, ACheckpointOfAnyStageResumesUnderAnyOtherWithTheSameDigest) {
  wire::StartTask start;
  start.set_kind("train");
  start.set_dataset_manifest(Import(testing::BlobsCsv(303, 3)));
  const std::string undisturbed = Weights(Train(0, start, 1)[0]);
  struct Case {
    int stage, ranks, then, then_ranks;
  };
  for (const Case& one : {Case{1, 4, 0, 1}, Case{0, 2, 1, 4}, Case{1, 3, 1, 2}, Case{1, 2, 2, 3},
                          Case{2, 4, 0, 2}, Case{0, 1, 2, 4}, Case{2, 3, 1, 4}, Case{3, 4, 0, 1},
                          Case{0, 1, 3, 3}, Case{3, 3, 3, 4}, Case{3, 1, 2, 2}}) {
    const auto stopped = Train(one.stage, start, one.ranks, 10);
    for (const auto& rank : stopped) {
      EXPECT_EQ(rank.status.code(), StatusCode::kCancelled) << rank.status.ToString();
    }
    ASSERT_FALSE(stopped[0].task->checkpoints.empty());
    const wire::TaskCheckpoint& last = stopped[0].task->checkpoints.back();
    // A small state that all have is the leader's.
    const bool apart = one.stage > 0 && one.ranks > 1;
    EXPECT_EQ(last.objects_size(), apart ? 0 : 1);
    EXPECT_EQ(last.slices_size(), apart ? one.ranks : 0);
    for (int rank = 0; rank < last.slices_size(); ++rank) {
      const auto& told = stopped[static_cast<size_t>(rank)].task->slices;
      EXPECT_TRUE(std::any_of(told.begin(), told.end(),
                              [&](const wire::TaskCheckpointSlice& one) {
                                return one.step() == last.step() &&
                                       one.object() == last.slices(rank);
                              }))
          << "rank " << rank;
    }
    wire::StartTask again = start;
    again.set_resume_checkpoint(last.manifest());
    EXPECT_EQ(Weights(Train(one.then, again, one.then_ranks)[0]), undisturbed)
        << one.stage << " with " << one.ranks << ", then " << one.then << " with "
        << one.then_ranks;
  }
}

// Statistics of batch normalisation are every rank's, and summed shard by shard.
TEST_F(ZeroTaskTest, AModelWithStatisticsHasTheSameDigest) {
  wire::StartTask start;
  start.set_kind("train");
  start.set_dataset_manifest(
      Import(ReadFile(std::string(LEPTON_SOURCE_DIR) + "/scripts/data/digits.csv").value()));
  const auto digest = [&](int stage, int ranks, int accumulate) {
    const spec::JobSpec spec = Spec(fmt::format(
        "{{kind: train, dataset: {{name: digits, image: {{channels: 1, height: 8, width: 8}}}}, "
        "batch_size: 40, steps: 6, accumulate: {}, "
        "model: {{arch: resnet18, stem: small, stem_width: 8, widths: [8, 16], depths: [1, 1]}}, "
        "elastic: {{logical_shards: 4}}, resources: {{max_workers: 4}}, parallel: {{zero: {}}}}}",
        accumulate, stage));
    const auto trained = RunGang(RunTrain, spec, start, ranks, [](testing::FakeTask& task) {
      task.backend = *collectives::FindBackend("native");
    });
    EXPECT_EQ(trained[0].metric("train/loss"),
              trained[static_cast<size_t>(ranks - 1)].metric("train/loss"));
    return Weights(trained[0]);
  };
  for (const int accumulate : {1, 3}) {
    const std::string whole = digest(0, 2, accumulate);
    for (const int stage : {1, 2, 3}) {
      for (const int ranks : {1, 3, 4}) {
        EXPECT_EQ(digest(stage, ranks, accumulate), whole) << stage << " with " << ranks;
      }
    }
  }
}

}  // namespace
}  // namespace lepton::worker
