#include "worker/evaluate/evaluate_task.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/worker/train/fake_task.h"
#include "tests/worker/train/sample_data.h"
#include "worker/train/train_task.h"

namespace lepton::worker {
namespace {

using ::testing::HasSubstr;
using testing::Rank;

class EvaluateTaskTest : public testing::TaskTest {
 protected:
  Rank TrainModel(const std::string& csv, const std::string& loss = "cross_entropy") {
    start_.set_dataset_manifest(Import(csv));
    spec::JobSpec spec = Spec("{kind: train, dataset: {name: blobs}, model: {hidden: [16]}}");
    spec.loss = loss;
    spec.optimizer.lr = 0.01;
    auto ranks = RunGang(RunTrain, spec, start_);
    EXPECT_TRUE(ranks[0].status.ok()) << ranks[0].status.ToString();
    start_.set_model_manifest(ranks[0].task->result.model_manifest());
    return std::move(ranks[0]);
  }
  std::vector<Rank> Evaluate(int ranks = 1, const std::string& split = "{}") {
    return RunGang(RunEvaluate,
                   Spec("{kind: evaluate, dataset: {name: blobs, split: " + split +
                        "}, model: {from: blobs@1}}"),
                   start_, ranks);
  }
  wire::StartTask start_;
};

TEST_F(EvaluateTaskTest, RepeatsTheTrainingsTestFigures) {
  const Rank trained = TrainModel(testing::BlobsCsv(1000, 4));
  const auto evaluated = Evaluate();
  ASSERT_TRUE(evaluated[0].status.ok()) << evaluated[0].status.ToString();
  EXPECT_EQ(evaluated[0].metric("test/accuracy"), trained.metric("test/accuracy"));
  EXPECT_EQ(evaluated[0].metric("test/loss"), trained.metric("test/loss"));
  EXPECT_EQ(evaluated[0].metric("test/rows"), 100);
  EXPECT_TRUE(evaluated[0].task->result.model_manifest().empty());

  double recalled = 0;
  for (const char* label : {"0", "1", "2", "3"}) {
    recalled += evaluated[0].metric(std::string("recall/") + label) * 25;  // stratified: 25 each
  }
  EXPECT_NEAR(recalled / 100, evaluated[0].metric("test/accuracy"), 1e-9);
}

TEST_F(EvaluateTaskTest, IsTheSameOnAnyNumberOfRanks) {
  TrainModel(testing::BlobsCsv(3000, 4));
  const auto one = Evaluate(1, "{train: 0.1, validation: 0}");
  const auto three = Evaluate(3, "{train: 0.1, validation: 0}");
  ASSERT_TRUE(one[0].status.ok()) << one[0].status.ToString();
  ASSERT_TRUE(three[2].status.ok()) << three[2].status.ToString();
  for (const auto& [name, value] : one[0].task->result.metrics()) {
    EXPECT_EQ(three[2].metric(name), value) << name;
  }
}

TEST_F(EvaluateTaskTest, UsesAllRowsWhenTheSplitLeavesNoTestPart) {
  TrainModel(testing::BlobsCsv(300, 3));
  const auto evaluated = Evaluate(1, "{train: 0.9, validation: 0.1}");
  ASSERT_TRUE(evaluated[0].status.ok()) << evaluated[0].status.ToString();
  EXPECT_EQ(evaluated[0].metric("test/rows"), 300);
}

TEST_F(EvaluateTaskTest, OtherDataWithMoreColumnsIsFineButNotAnUnseenClass) {
  TrainModel(testing::BlobsCsv(300, 3));
  start_.set_dataset_manifest(
      Import("extra,c,b,a,target\n1,5,0,10,0\n2,5,0.87,-5,1\n3,5,-0.87,-5,2\n"));
  const auto evaluated = Evaluate(1, "{train: 0.9, validation: 0.1}");
  ASSERT_TRUE(evaluated[0].status.ok()) << evaluated[0].status.ToString();
  EXPECT_EQ(evaluated[0].metric("test/accuracy"), 1);  // the centres of the blobs

  start_.set_dataset_manifest(Import("a,b,c,target\n1,2,5,0\n1,2,5,7\n"));
  const Status unseen = Evaluate()[0].status;
  EXPECT_EQ(unseen.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(unseen.message(), HasSubstr("class \"7\", which was not seen in training"));
}

TEST_F(EvaluateTaskTest, MeasuresRegression) {
  const Rank trained = TrainModel(testing::LineCsv(400), "mse");
  const auto evaluated = Evaluate();
  ASSERT_TRUE(evaluated[0].status.ok()) << evaluated[0].status.ToString();
  EXPECT_EQ(evaluated[0].metric("test/r2"), trained.metric("test/r2"));
}

// What quantisation may cost: half a point.
TEST_F(EvaluateTaskTest, InEightBitsAModelIsAsGoodAndNotTheSame) {
  const auto csv = ReadFile(LEPTON_SOURCE_DIR "/scripts/data/digits.csv");
  ASSERT_TRUE(csv.ok()) << csv.status().ToString();
  start_.set_dataset_manifest(Import(*csv));
  const auto trained = RunGang(RunTrain, Spec(R"({
kind: train, dataset: {name: digits}, model: {hidden: [128, 64], activation: gelu},
optimizer: {name: adamw, lr: 0.004}, batch_size: 32, epochs: 15})"),
                               start_);
  ASSERT_TRUE(trained[0].status.ok()) << trained[0].status.ToString();
  start_.set_model_manifest(trained[0].task->result.model_manifest());
  std::map<std::string, double> accuracy, loss;
  for (const std::string precision : {"model", "f32", "int8"}) {
    const auto ranks = RunGang(RunEvaluate,
                               Spec("{kind: evaluate, dataset: {name: digits, split: {train: 0.1, "
                                    "validation: 0}}, model: {from: digits@1}, precision: " +
                                    precision + "}"),
                               start_);
    ASSERT_TRUE(ranks[0].status.ok()) << ranks[0].status.ToString();
    accuracy[precision] = ranks[0].metric("test/accuracy");
    loss[precision] = ranks[0].metric("test/loss");
  }
  EXPECT_EQ(loss["model"], loss["f32"]);
  EXPECT_NE(loss["int8"], loss["f32"]);
  EXPECT_GT(accuracy["f32"], 0.96);
  EXPECT_NEAR(accuracy["int8"], accuracy["f32"], 0.005);
}

TEST_F(EvaluateTaskTest, ACorruptModelIsDataLoss) {
  const Rank trained = TrainModel(testing::BlobsCsv(300, 3));
  const storage::Digest weights = ModelOf(trained).weights;
  std::ofstream(objects_->PathOf(weights), std::ios::app) << "x";
  EXPECT_EQ(Evaluate()[0].status.code(), StatusCode::kDataLoss);
}

}  // namespace
}  // namespace lepton::worker
