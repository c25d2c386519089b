#include "worker/train/train_task.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "storage/checkpoints/checkpoint.h"
#include "tests/worker/train/fake_task.h"
#include "tests/worker/train/sample_data.h"

namespace lepton::worker {
namespace {

using testing::FakeTask;
using ::testing::HasSubstr;
using testing::Rank;

constexpr char kBlobs[] = R"(
kind: train
dataset: {name: blobs}
model: {hidden: [16, 8], dropout: 0.1}
optimizer: {name: adamw, lr: 0.01}
schedule: {name: cosine, warmup_steps: 4}
batch_size: 20
epochs: 6
elastic: {logical_shards: 4}
resources: {max_workers: 4}
checkpoint: {every_steps: 5}
)";

class TrainTaskTest : public testing::TaskTest {
 protected:
  wire::StartTask Start(const std::string& csv, const std::string& kind = "train") {
    wire::StartTask start;
    start.set_kind(kind);
    start.set_dataset_manifest(Import(csv));
    return start;
  }
  std::vector<Rank> Train(const spec::JobSpec& spec, const wire::StartTask& start, int ranks = 1,
                          const std::function<void(FakeTask&)>& prepare = {}) {
    return RunGang(RunTrain, spec, start, ranks, prepare);
  }
  // Of a run that must succeed.
  std::string Weights(const Rank& rank) {
    EXPECT_TRUE(rank.status.ok()) << rank.status.ToString();
    return ModelOf(rank).weights_sha256;
  }
};

TEST_F(TrainTaskTest, ACheckpointBehindTheEndIsRefusedNamingWhatEndsTheRun) {
  wire::StartTask start = Start(testing::BlobsCsv(303, 3));
  const std::vector<Rank> stopped =
      Train(Spec(kBlobs), start, 1, [](FakeTask& task) { task.stop_at_checkpoint = 15; });
  start.set_resume_checkpoint(stopped[0].task->checkpoints.back().manifest());
  spec::JobSpec shorter = Spec(kBlobs);
  shorter.epochs = 1;
  const auto refused = [&](const spec::JobSpec& spec) {
    const Status status = Train(spec, start)[0].status;
    EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition) << status.ToString();
    return status.message();
  };
  EXPECT_THAT(refused(shorter), HasSubstr("raise epochs, or begin without the checkpoint"));
  shorter.steps = 7;
  EXPECT_THAT(
      refused(shorter),
      HasSubstr(fmt::format("steps: the run ends at step 7, but the checkpoint that it goes "
                            "on from is of step {}",
                            stopped[0].task->checkpoints.back().step())));
  shorter.steps = 100;
  shorter.labels["lepton.stop_at_step"] = "4";
  EXPECT_THAT(refused(shorter),
              HasSubstr("labels.lepton.stop_at_step or .stop_at_epoch: the run ends at step 4"));
}

TEST_F(TrainTaskTest, LearnsAndStoresAModelWithItsLineage) {
  const wire::StartTask start = Start(testing::BlobsCsv(303, 3));
  const std::vector<Rank> ranks = Train(Spec(kBlobs), start);
  ASSERT_TRUE(ranks[0].status.ok()) << ranks[0].status.ToString();
  EXPECT_GE(ranks[0].metric("test/accuracy"), 0.95);
  EXPECT_LT(ranks[0].metric("test/loss"), 0.4);
  EXPECT_GT(ranks[0].metric("validation/accuracy"), 0.9);
  EXPECT_GT(ranks[0].metric("train/accuracy"), 0.9);
  EXPECT_GT(ranks[0].metric("samples_per_second"), 0);

  const wire::TaskFinished& result = ranks[0].task->result;
  EXPECT_EQ(result.steps(), 6u * 13);  // 242 or 243 rows in batches of 20
  const storage::ModelManifest model = ModelOf(ranks[0]);
  EXPECT_EQ(model.job_id, "j1");
  EXPECT_EQ(model.dataset, start.dataset_manifest());
  EXPECT_EQ(model.steps, static_cast<int64_t>(result.steps()));
  EXPECT_EQ(model.parameters, 3 * 16 + 16 + 16 * 8 + 8 + 8 * 3 + 3);
  EXPECT_EQ(model.metrics.at("test/accuracy"), ranks[0].metric("test/accuracy"));
  ASSERT_EQ(result.objects_size(), 2);
  for (const std::string& digest : result.objects()) EXPECT_TRUE(objects_->Has(digest));
}

TEST_F(TrainTaskTest, WeightsHaveTheSameBitsForOneTwoAndFourRanks) {
  const wire::StartTask start = Start(testing::BlobsCsv(303, 3));
  const auto one = Train(Spec(kBlobs), start, 1);
  const auto two = Train(Spec(kBlobs), start, 2);
  const auto four = Train(Spec(kBlobs), start, 4);
  const std::string weights = Weights(one[0]);
  EXPECT_EQ(Weights(two[0]), weights);
  EXPECT_EQ(Weights(four[0]), weights);
  for (const char* metric : {"train/loss", "test/loss", "test/accuracy", "validation/loss"}) {
    EXPECT_EQ(two[0].metric(metric), one[0].metric(metric)) << metric;
    EXPECT_EQ(four[0].metric(metric), one[0].metric(metric)) << metric;
    EXPECT_EQ(four[3].metric(metric), one[0].metric(metric)) << metric;
  }
  EXPECT_TRUE(four[1].task->progress.empty()) << "only rank 0 reports";
  EXPECT_TRUE(four[1].task->result.model_manifest().empty());
}

TEST_F(TrainTaskTest, TheNativeBackEndGivesTheSameBits) {
  const wire::StartTask start = Start(testing::BlobsCsv(303, 3));
  const std::string weights = Weights(Train(Spec(kBlobs), start, 1)[0]);
  const auto native = collectives::FindBackend("native");
  ASSERT_TRUE(native.ok()) << native.status().ToString();
  for (const int ranks : {2, 3, 4}) {
    const auto trained =
        Train(Spec(kBlobs), start, ranks, [&](FakeTask& task) { task.backend = *native; });
    EXPECT_EQ(Weights(trained[0]), weights) << ranks << " ranks";
  }
}

TEST_F(TrainTaskTest, AnotherSeedGivesOtherWeights) {
  const wire::StartTask start = Start(testing::BlobsCsv(100, 3));
  spec::JobSpec spec = Spec(kBlobs);
  const std::string first = Weights(Train(spec, start)[0]);
  spec.seed = 1;
  EXPECT_NE(Weights(Train(spec, start)[0]), first);
}

TEST_F(TrainTaskTest, AStoppedRunResumesToTheBitsOfAnUndisturbedOne) {
  wire::StartTask start = Start(testing::BlobsCsv(303, 3));
  const spec::JobSpec spec = Spec(kBlobs);
  const std::string undisturbed = Weights(Train(spec, start)[0]);

  // Rank 1 is told to stop in the middle of an epoch; both leave at the same step.
  const auto stopped = Train(spec, start, 2, [](FakeTask& task) {
    if (task.start().rank() == 0) task.stop_at_checkpoint = 15;
  });
  for (const Rank& rank : stopped) EXPECT_EQ(rank.status.code(), StatusCode::kCancelled);
  ASSERT_FALSE(stopped[0].task->checkpoints.empty());
  const wire::TaskCheckpoint& last = stopped[0].task->checkpoints.back();
  // The order comes when that of step 15 is durable, while steps go on.
  ASSERT_GT(last.step(), 15u);
  ASSERT_LT(last.step(), 78u);
  EXPECT_THAT(stopped[1].status.message(),
              HasSubstr(fmt::format("stopped after step {}", last.step())));
  EXPECT_TRUE(last.metrics().empty()) << "a stop leaves no time for an evaluation";
  for (const std::string& digest : last.objects()) EXPECT_TRUE(objects_->Has(digest));

  start.set_resume_checkpoint(last.manifest());
  for (const int ranks : {1, 4}) {
    const auto resumed = Train(spec, start, ranks);
    EXPECT_EQ(Weights(resumed[0]), undisturbed) << ranks << " ranks";
    EXPECT_EQ(resumed[0].task->checkpoints.front().step(), last.step() / 5 * 5 + 5);
  }
}

// A search compares trials by them, and a model's manifest has them.
TEST_F(TrainTaskTest, AResumedRunReportsTheFiguresOfAnUndisturbedOne) {
  wire::StartTask start = Start(testing::BlobsCsv(303, 3));
  spec::JobSpec spec = Spec(kBlobs);
  spec.batch_size = 4;
  spec.epochs = 1;
  const Rank undisturbed = std::move(Train(spec, start)[0]);
  const auto stopped = Train(spec, start, 2, [](FakeTask& task) {
    if (task.start().rank() == 0) task.stop_at_checkpoint = 15;
  });
  ASSERT_EQ(stopped[0].status.code(), StatusCode::kCancelled);
  start.set_resume_checkpoint(stopped[0].task->checkpoints.back().manifest());
  const auto resumed = Train(spec, start, 2);
  ASSERT_TRUE(resumed[0].status.ok()) << resumed[0].status.ToString();
  EXPECT_EQ(resumed[0].metric("train/loss"), undisturbed.metric("train/loss"));
}

TEST_F(TrainTaskTest, CheckpointsComeAtTheirInterval) {
  const auto ranks = Train(Spec(kBlobs), Start(testing::BlobsCsv(100, 3)), 2);
  ASSERT_TRUE(ranks[0].status.ok()) << ranks[0].status.ToString();
  std::vector<uint64_t> steps;
  for (const auto& checkpoint : ranks[0].task->checkpoints) steps.push_back(checkpoint.step());
  EXPECT_EQ(steps, (std::vector<uint64_t>{5, 10, 15, 20}));  // 24 steps
  EXPECT_EQ(ranks[0].task->result.last_checkpoint(), ranks[0].task->checkpoints.back().manifest());
  EXPECT_EQ(ranks[1].task->result.last_checkpoint(), ranks[0].task->result.last_checkpoint());
  EXPECT_TRUE(ranks[1].task->checkpoints.empty());
}

TEST_F(TrainTaskTest, ALossThatIsNotFiniteFailsOnAllRanksNamingTheLastGoodCheckpoint) {
  spec::JobSpec spec = Spec(R"(
kind: train
dataset: {name: line}
loss: mse
model: {hidden: [8]}
optimizer: {name: sgd, lr: 900, momentum: 0}
batch_size: 20
steps: 1000
resources: {max_workers: 2}
checkpoint: {every_steps: 1}
)");
  const auto ranks = Train(spec, Start(testing::LineCsv(100)), 2);
  for (const Rank& rank : ranks) {
    EXPECT_EQ(rank.status.code(), StatusCode::kFailedPrecondition) << rank.status.ToString();
    EXPECT_EQ(rank.status.message(), ranks[0].status.message());
  }
  ASSERT_FALSE(ranks[0].task->checkpoints.empty());
  const auto& last = ranks[0].task->checkpoints.back();
  EXPECT_THAT(ranks[0].status.message(), HasSubstr(" at step " + std::to_string(last.step() + 1)));
  EXPECT_THAT(ranks[0].status.message(),
              HasSubstr("last good checkpoint: step " + std::to_string(last.step()) + " (" +
                        last.manifest() + ")"));
  const auto checkpoint = storage::ReadCheckpoint(*objects_, last.manifest());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status().ToString();
  for (const float weight : checkpoint->tensors.at("weights")) ASSERT_TRUE(std::isfinite(weight));
}

// Of 16 MB of state each of three ranks writes a third, and any number of ranks goes on from it.
TEST_F(TrainTaskTest, ALargeStateIsWrittenByAllRanks) {
  const spec::JobSpec spec = Spec(R"(
kind: train
dataset: {name: blobs}
model: {hidden: [1150, 1150]}
optimizer: {name: adamw, lr: 0.001}
batch_size: 60
steps: 7
elastic: {logical_shards: 3}
resources: {max_workers: 3}
checkpoint: {every_steps: 3, keep_best: {count: 0}}
)");
  wire::StartTask start = Start(testing::BlobsCsv(100, 3));
  const auto ranks = Train(spec, start, 3);
  const std::string weights = Weights(ranks[0]);
  const auto& checkpoints = ranks[0].task->checkpoints;
  ASSERT_EQ(checkpoints.size(), 2u);
  ASSERT_EQ(checkpoints[0].slices_size(), 3);
  EXPECT_EQ(ranks[0].task->result.last_checkpoint(), checkpoints[1].manifest());
  uint64_t bytes = 0;
  for (int rank = 0; rank < 3; ++rank) {
    const auto& slices = ranks[static_cast<size_t>(rank)].task->slices;
    ASSERT_EQ(slices.size(), 2u);
    EXPECT_EQ(slices[0].object(), checkpoints[0].slices(rank));
    bytes += *objects_->Size(slices[0].object());
  }
  EXPECT_GT(bytes, 3u * 1150 * 1150 * sizeof(float));
  start.set_resume_checkpoint(checkpoints[0].manifest());
  for (const int again : {1, 2}) EXPECT_EQ(Weights(Train(spec, start, again)[0]), weights);
}

TEST_F(TrainTaskTest, ATrialInRungsIsTheWholeRun) {
  const std::string csv = testing::BlobsCsv(100, 3);
  spec::JobSpec spec = Spec(kBlobs);
  const std::string whole = Weights(Train(spec, Start(csv))[0]);

  wire::StartTask start = Start(csv, "trial");
  spec.labels["lepton.stop_at_epoch"] = "2";
  const auto first = Train(spec, start);
  ASSERT_TRUE(first[0].status.ok()) << first[0].status.ToString();
  EXPECT_EQ(first[0].task->result.steps(), 8u);
  EXPECT_GT(first[0].metric("validation/accuracy"), 0);
  EXPECT_NE(ModelOf(first[0]).weights_sha256, whole);
  EXPECT_EQ(first[0].task->checkpoints.back().step(), 8u);

  start.set_resume_checkpoint(first[0].task->result.last_checkpoint());
  spec.labels["lepton.stop_at_epoch"] = "6";
  const auto second = Train(spec, start);
  EXPECT_EQ(second[0].task->result.steps(), 24u);
  EXPECT_EQ(Weights(second[0]), whole);

  // A rung that had finished its steps before the task died only reports again.
  start.set_resume_checkpoint(second[0].task->result.last_checkpoint());
  const auto again = Train(spec, start);
  EXPECT_EQ(Weights(again[0]), whole);
  EXPECT_EQ(again[0].metric("test/loss"), second[0].metric("test/loss"));

  spec.labels["lepton.stop_at_epoch"] = "two";
  EXPECT_EQ(Train(spec, start)[0].status.code(), StatusCode::kInvalidArgument);
}

TEST_F(TrainTaskTest, StartsFromAModelAndNamesAParameterThatDoesNotFit) {
  wire::StartTask start = Start(testing::BlobsCsv(303, 3));
  spec::JobSpec spec = Spec(kBlobs);
  const auto base = Train(spec, start);
  ASSERT_TRUE(base[0].status.ok()) << base[0].status.ToString();
  start.set_model_manifest(base[0].task->result.model_manifest());

  spec.steps = 1;
  spec.optimizer.lr = 1e-12;
  const auto tuned = Train(spec, start);
  ASSERT_TRUE(tuned[0].status.ok()) << tuned[0].status.ToString();
  EXPECT_NEAR(tuned[0].metric("test/loss"), base[0].metric("test/loss"), 1e-6);
  EXPECT_EQ(tuned[0].metric("test/accuracy"), base[0].metric("test/accuracy"));

  spec.model.hidden = {16, 9};
  const auto misfit = Train(spec, start);
  EXPECT_EQ(misfit[0].status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(misfit[0].status.message(), HasSubstr("model.from: parameter layers.1"));
  EXPECT_THAT(misfit[0].status.message(), HasSubstr("[16, 8]"));
}

TEST_F(TrainTaskTest, RefusesACheckpointOfAnotherRun) {
  wire::StartTask start = Start(testing::BlobsCsv(100, 3));
  spec::JobSpec spec = Spec(kBlobs);
  const auto base = Train(spec, start);
  ASSERT_TRUE(base[0].status.ok()) << base[0].status.ToString();
  start.set_resume_checkpoint(base[0].task->result.last_checkpoint());
  spec.seed = 9;
  EXPECT_THAT(Train(spec, start)[0].status.message(), HasSubstr("seed 0"));
  spec.seed = 0;
  spec.model.hidden = {4};
  const Status status = Train(spec, start)[0].status;
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("values of weights"));
}

TEST_F(TrainTaskTest, RegressionFindsTheLine) {
  const auto ranks = Train(Spec(R"(
kind: train
dataset: {name: line}
loss: mse
model: {hidden: [32]}
optimizer: {lr: 0.02}
schedule: {name: cosine}
epochs: 30
)"),
                           Start(testing::LineCsv(400)));
  ASSERT_TRUE(ranks[0].status.ok()) << ranks[0].status.ToString();
  EXPECT_GT(ranks[0].metric("test/r2"), 0.97);
  EXPECT_LT(ranks[0].metric("test/mse"), 0.3);
  EXPECT_TRUE(std::isnan(ranks[0].metric("test/accuracy")));
}

TEST_F(TrainTaskTest, BinaryCrossEntropyLearnsTwoClasses) {
  spec::JobSpec spec = Spec(kBlobs);
  spec.loss = "binary_cross_entropy";
  const auto ranks = Train(spec, Start(testing::BlobsCsv(200, 2)), 2);
  ASSERT_TRUE(ranks[0].status.ok()) << ranks[0].status.ToString();
  EXPECT_GE(ranks[0].metric("test/accuracy"), 0.95);
}

TEST_F(TrainTaskTest, ReportsProgressAtMostEveryFifthOfASecondAndAtEvaluations) {
  const auto ranks = Train(Spec(kBlobs), Start(testing::BlobsCsv(303, 3)), 2);
  ASSERT_TRUE(ranks[0].status.ok()) << ranks[0].status.ToString();
  const auto& progress = ranks[0].task->progress;
  ASSERT_GE(progress.size(), 6u);
  EXPECT_EQ(progress.back().step(), 78u);
  EXPECT_EQ(progress.back().total_steps(), 78u);
  EXPECT_DOUBLE_EQ(progress.back().epoch(), 6);
  for (const char* name : {"train/loss", "train/accuracy", "validation/loss", "validation/accuracy",
                           "learning_rate", "grad_norm"}) {
    EXPECT_EQ(progress.back().metrics().count(name), 1u) << name;
  }
  EXPECT_LT(progress.back().metrics().at("train/loss"), progress[0].metrics().at("train/loss"));
}

TEST_F(TrainTaskTest, ARankThatFailsAloneEndsTheWholeGang) {
  const wire::StartTask start = Start(testing::BlobsCsv(303, 3));
  // The disk fills up under rank 0 (here: its store's folder is gone).
  const auto ranks = Train(Spec(kBlobs), start, 2, [this](FakeTask& task) {
    task.on_progress = [this](const wire::TaskProgress&) {
      for (const char* name : {"tmp", "objects"}) {
        std::error_code raced;  // with a checkpoint on its way; the next report tries again
        std::filesystem::remove_all(objects_->root() / name, raced);
        std::ofstream(objects_->root() / name) << "not a folder";
      }
    };
  });
  EXPECT_FALSE(ranks[0].status.ok());
  EXPECT_THAT(ranks[0].status.message(), HasSubstr("checkpoint of step"));
  EXPECT_EQ(ranks[1].status.code(), StatusCode::kAborted) << ranks[1].status.ToString();
}

TEST_F(TrainTaskTest, RefusesWhatItCannotRun) {
  spec::JobSpec spec = Spec(kBlobs);
  spec.resources.device = "cuda";
  const wire::StartTask start = Start(testing::BlobsCsv(50, 3));
  EXPECT_THAT(Train(spec, start)[0].status.message(), HasSubstr("resources.device"));
  wire::StartTask lost = start;
  lost.set_dataset_manifest(std::string(64, 'a'));
  EXPECT_EQ(Train(Spec(kBlobs), lost)[0].status.code(), StatusCode::kNotFound);
}

}  // namespace
}  // namespace lepton::worker
