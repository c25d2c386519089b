// The quick start's recipes on its real data: what the README promises.
#include <gtest/gtest.h>

#include "tests/worker/train/fake_task.h"
#include "worker/train/train_task.h"

namespace lepton::worker {
namespace {

class RealDataTest : public testing::TaskTest, public ::testing::WithParamInterface<const char*> {
 protected:
  // Mean over three splits and first weights, so that one row more or less does not decide.
  double TestAccuracy(const std::string& file, const std::string& recipe) {
    const auto csv = ReadFile(std::string(LEPTON_SOURCE_DIR "/scripts/data/") + file);
    EXPECT_TRUE(csv.ok()) << csv.status().ToString();
    if (!csv.ok()) return 0;
    wire::StartTask start;
    start.set_kind("train");
    start.set_dataset_manifest(Import(*csv));
    spec::JobSpec spec = Spec(recipe);
    spec.precision = GetParam();
    double sum = 0;
    for (spec.seed = 0; spec.seed < 3; ++spec.seed) {
      spec.dataset.split.seed = spec.seed;
      const auto ranks = RunGang(RunTrain, spec, start, 2);
      EXPECT_TRUE(ranks[0].status.ok()) << ranks[0].status.ToString();
      sum += ranks[0].metric("test/accuracy");
    }
    return sum / 3;
  }
};

TEST_P(RealDataTest, DigitsReach97Percent) {
  EXPECT_GE(TestAccuracy("digits.csv", R"(
kind: train
dataset: {name: digits}
model: {hidden: [128, 64], activation: gelu, dropout: 0.2}
optimizer: {name: adamw, lr: 0.004, weight_decay: 0.1}
schedule: {name: cosine, warmup_steps: 20}
batch_size: 32
epochs: 40
resources: {max_workers: 2}
)"),
            0.97);
}

TEST_P(RealDataTest, BreastCancerReaches95Percent) {
  EXPECT_GE(TestAccuracy("breast_cancer.csv", R"(
kind: train
dataset: {name: breast_cancer, split: {train: 0.7, validation: 0.1}}
model: {hidden: [64, 32], activation: gelu, dropout: 0.2}
optimizer: {name: adamw, lr: 0.002, weight_decay: 0.1}
schedule: {name: cosine, warmup_steps: 10}
batch_size: 32
epochs: 30
resources: {max_workers: 2}
)"),
            0.95);
}

INSTANTIATE_TEST_SUITE_P(Precisions, RealDataTest, ::testing::Values("f32", "bf16"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace lepton::worker
