#include "worker/distill/distill_task.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/worker/train/fake_task.h"
#include "tests/worker/train/sample_data.h"
#include "worker/train/train_task.h"

namespace lepton::worker {
namespace {

using testing::FakeTask;
using ::testing::HasSubstr;
using testing::Rank;

constexpr char kTeacher[] = R"(
kind: train
dataset: {name: blobs}
model: {hidden: [64, 32]}
optimizer: {lr: 0.01}
schedule: {name: cosine}
batch_size: 32
epochs: 10
)";
constexpr char kStudent[] = R"(
kind: distill
teacher: blobs@1
dataset: {name: blobs}
model: {hidden: [8]}
optimizer: {lr: 0.02}
schedule: {name: cosine}
temperature: 3
alpha: 0.7
batch_size: 32
epochs: 8
elastic: {logical_shards: 4}
checkpoint: {every_steps: 10}
)";

class DistillTaskTest : public testing::TaskTest {
 protected:
  // A trained teacher, and the orders of a distillation from it.
  wire::StartTask Start(const std::string& csv) {
    wire::StartTask start;
    start.set_kind("train");
    start.set_dataset_manifest(Import(csv));
    const auto teacher = RunGang(RunTrain, Spec(kTeacher), start);
    EXPECT_TRUE(teacher[0].status.ok()) << teacher[0].status.ToString();
    teacher_accuracy_ = teacher[0].metric("test/accuracy");
    start.set_kind("distill");
    start.set_teacher_manifest(teacher[0].task->result.model_manifest());
    return start;
  }
  double teacher_accuracy_ = 0;
};

TEST_F(DistillTaskTest, ReportsTeacherStudentAloneAndDistilledSideBySide) {
  const wire::StartTask start = Start(testing::BlobsCsv(500, 5));
  const auto ranks = RunGang(RunDistill, Spec(kStudent), start);
  ASSERT_TRUE(ranks[0].status.ok()) << ranks[0].status.ToString();
  EXPECT_EQ(ranks[0].metric("teacher/accuracy"), teacher_accuracy_);
  EXPECT_GT(ranks[0].metric("student_alone/accuracy"), 0.7);
  EXPECT_GT(ranks[0].metric("test/accuracy"), 0.7);
  EXPECT_EQ(ranks[0].metric("teacher/parameters"), 3 * 64 + 64 + 64 * 32 + 32 + 32 * 5 + 5);
  EXPECT_EQ(ranks[0].metric("student/parameters"), 3 * 8 + 8 + 8 * 5 + 5);
  const storage::ModelManifest model = ModelOf(ranks[0]);
  EXPECT_EQ(model.teacher, start.teacher_manifest());
  EXPECT_EQ(model.parameters, 3 * 8 + 8 + 8 * 5 + 5);
  EXPECT_EQ(model.metrics.at("teacher/accuracy"), teacher_accuracy_);
}

TEST_F(DistillTaskTest, TheStudentAloneIsAPlainTraining) {
  const wire::StartTask start = Start(testing::BlobsCsv(500, 5));
  const auto distilled = RunGang(RunDistill, Spec(kStudent), start);
  spec::JobSpec alone = Spec(kStudent);
  alone.kind = spec::JobKind::kTrain;
  alone.distill.reset();
  const auto trained = RunGang(RunTrain, alone, start);
  ASSERT_TRUE(distilled[0].status.ok()) << distilled[0].status.ToString();
  ASSERT_TRUE(trained[0].status.ok()) << trained[0].status.ToString();
  EXPECT_EQ(distilled[0].metric("student_alone/accuracy"), trained[0].metric("test/accuracy"));
  EXPECT_NE(ModelOf(distilled[0]).weights_sha256, ModelOf(trained[0]).weights_sha256);
}

// With alpha 1 the labels are never looked at: all that the student knows comes from the teacher.
TEST_F(DistillTaskTest, ATeacherAloneTeaches) {
  const wire::StartTask start = Start(testing::BlobsCsv(500, 5));
  spec::JobSpec spec = Spec(kStudent);
  spec.distill->alpha = 1;
  const auto ranks = RunGang(RunDistill, spec, start);
  ASSERT_TRUE(ranks[0].status.ok()) << ranks[0].status.ToString();
  EXPECT_GT(ranks[0].metric("test/accuracy"), 0.7);
}

TEST_F(DistillTaskTest, BitsDoNotDependOnRanksNorOnAResume) {
  wire::StartTask start = Start(testing::BlobsCsv(500, 5));
  const auto one = RunGang(RunDistill, Spec(kStudent), start, 1);
  const auto two = RunGang(RunDistill, Spec(kStudent), start, 2);
  ASSERT_TRUE(one[0].status.ok()) << one[0].status.ToString();
  ASSERT_TRUE(two[0].status.ok()) << two[0].status.ToString();
  const std::string weights = ModelOf(one[0]).weights_sha256;
  EXPECT_EQ(ModelOf(two[0]).weights_sha256, weights);
  EXPECT_EQ(two[1].metric("student_alone/accuracy"), one[0].metric("student_alone/accuracy"));

  for (const auto& checkpoint : one[0].task->checkpoints) {
    if (checkpoint.step() != 20 && &checkpoint != &one[0].task->checkpoints[0]) continue;
    start.set_resume_checkpoint(checkpoint.manifest());
    const auto resumed = RunGang(RunDistill, Spec(kStudent), start);
    ASSERT_TRUE(resumed[0].status.ok()) << resumed[0].status.ToString();
    EXPECT_EQ(ModelOf(resumed[0]).weights_sha256, weights) << "from step " << checkpoint.step();
  }
}

// Student and baseline both have weights of which each rank has its slices alone.
TEST_F(DistillTaskTest, BitsDoNotDependOnWhoHasTheWeights) {
  const wire::StartTask start = Start(testing::BlobsCsv(303, 5));
  spec::JobSpec sliced = Spec(kStudent);
  sliced.parallel.zero = 3;
  const auto whole = RunGang(RunDistill, Spec(kStudent), start, 1);
  const auto ranks = RunGang(RunDistill, sliced, start, 3, [](FakeTask& task) {
    task.backend = *collectives::FindBackend("native");
  });
  EXPECT_EQ(ModelOf(ranks[0]).weights_sha256, ModelOf(whole[0]).weights_sha256);
  for (const char* metric : {"student_alone/accuracy", "student/parameters", "test/loss"}) {
    EXPECT_EQ(ranks[0].metric(metric), whole[0].metric(metric)) << metric;
  }
}

TEST_F(DistillTaskTest, NamesWhatTheTeacherAndTheDataDoNotShare) {
  wire::StartTask start = Start(testing::BlobsCsv(100, 3));
  const auto error = [&](const std::string& csv) {
    start.set_dataset_manifest(Import(csv));
    const Status status = RunGang(RunDistill, Spec(kStudent), start)[0].status;
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    return status.message();
  };
  EXPECT_THAT(error(testing::BlobsCsv(100, 4)),
              HasSubstr("teacher: it does not have the class \"3\""));
  EXPECT_THAT(error(testing::BlobsCsv(100, 2)),
              HasSubstr("teacher: its class \"2\" is not in the dataset"));
  EXPECT_THAT(error("a,b,target\n1,2,0\n2,3,1\n3,4,2\n"),
              HasSubstr("teacher: its feature \"c\" is not a column"));
  EXPECT_THAT(error("a,b,c,d,target\n1,2,5,1,0\n2,3,5,1,1\n3,4,5,1,2\n"),
              HasSubstr("teacher: it does not have the feature \"d\""));
}

TEST_F(DistillTaskTest, AStopInTheBaselineIsACancel) {
  wire::StartTask start = Start(testing::BlobsCsv(500, 5));
  const auto ranks = RunGang(RunDistill, Spec(kStudent), start, 2, [](FakeTask& task) {
    task.on_progress = [&task](const wire::TaskProgress& progress) {
      if (progress.metrics().contains("student_alone/step")) task.stop = true;
    };
  });
  for (const Rank& rank : ranks) EXPECT_EQ(rank.status.code(), StatusCode::kCancelled);
  EXPECT_EQ(ranks[0].task->checkpoints.back().step(), 8u * 13);  // the student's work is kept
}

// The student was what was asked for.
TEST_F(DistillTaskTest, ABaselineThatComesToNothingLeavesTheStudent) {
  const wire::StartTask start = Start(testing::BlobsCsv(500, 5));
  const auto whole = RunGang(RunDistill, Spec(kStudent), start, 2);
  ::setenv("LEPTON_TEST_BASELINE_FAULT", "nan@20", 1);
  const auto ranks = RunGang(RunDistill, Spec(kStudent), start, 2);
  ::unsetenv("LEPTON_TEST_BASELINE_FAULT");
  for (const Rank& rank : ranks) EXPECT_TRUE(rank.status.ok()) << rank.status.ToString();
  EXPECT_FALSE(ranks[0].task->result.metrics().contains("student_alone/accuracy"));
  EXPECT_EQ(ranks[0].metric("teacher/accuracy"), teacher_accuracy_);
  EXPECT_EQ(ModelOf(ranks[0]).weights, ModelOf(whole[0]).weights);
}

}  // namespace
}  // namespace lepton::worker
