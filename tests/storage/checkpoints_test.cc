#include <unistd.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "runtime/base/file.h"
#include "storage/checkpoints/checkpoint.h"
#include "storage/manifests/manifest_reader.h"
#include "tests/storage/status_matchers.h"

namespace lepton::storage {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class CheckpointTest : public testing::Test {
 protected:
  Result<WrittenCheckpoint> Write(uint64_t step) {
    CheckpointInfo info;
    info.job_id = "j1";
    info.step = step;
    info.seed = UINT64_MAX;
    info.metrics = {{"validation/accuracy", 0.1 + 0.2},
                    {"loss", std::numeric_limits<double>::quiet_NaN()}};
    return WriteCheckpoint(*objects_, info,
                           {{"weights", {2, 3}, weights_}, {"optimizer", {4}, state_}});
  }
  void Damage(const Digest& digest) {
    std::fstream file(objects_->PathOf(digest), std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(-1, std::ios::end);
    const char last = static_cast<char>(file.get() ^ 0x01);
    file.seekp(-1, std::ios::end);
    file.put(last);
  }

  TempFolder folder_;
  std::unique_ptr<ObjectStore> objects_ = ObjectStore::Open(folder_.path()).value();
  const std::vector<float> weights_ = {1,     -2,   0.5f, std::numeric_limits<float>::denorm_min(),
                                       -0.0f, 3e38f};
  const std::vector<float> state_ = {4, 5, 6, 7};
};

TEST_F(CheckpointTest, ComesBackBitForBit) {
  const auto written = Write(300);
  ASSERT_THAT(written, IsOk());
  const auto loaded = ReadCheckpoint(*objects_, written->manifest);
  ASSERT_THAT(loaded, IsOk());
  EXPECT_EQ(loaded->info.job_id, "j1");
  EXPECT_EQ(loaded->info.step, 300u);
  EXPECT_EQ(loaded->info.seed, UINT64_MAX);
  EXPECT_EQ(loaded->info.data, written->data);
  EXPECT_EQ(loaded->info.metrics.at("validation/accuracy"), 0.1 + 0.2);
  EXPECT_TRUE(std::isnan(loaded->info.metrics.at("loss")));
  ASSERT_EQ(loaded->tensors.size(), 2u);
  EXPECT_EQ(loaded->tensors.at("weights"), weights_);
  EXPECT_TRUE(std::signbit(loaded->tensors.at("weights")[4]));
  EXPECT_EQ(loaded->tensors.at("optimizer"), state_);
  EXPECT_EQ(ReadCheckpointInfo(*objects_, written->manifest)->step, 300u);
}

TEST_F(CheckpointTest, TwoStepsWithEqualTensorsAreApart) {
  const auto a = Write(1).value(), b = Write(2).value();
  EXPECT_NE(a.data, b.data);
  ASSERT_THAT(objects_->Remove(a.data), IsOk());
  ASSERT_THAT(objects_->Remove(a.manifest), IsOk());
  EXPECT_THAT(ReadCheckpoint(*objects_, b.manifest), IsOk());
}

TEST_F(CheckpointTest, CorruptOrCutOrMissingObjectsAreRefused) {
  auto written = Write(1).value();
  Damage(written.data);
  EXPECT_THAT(ReadCheckpoint(*objects_, written.manifest),
              Fails(StatusCode::kDataLoss, "checkpoint 1"));
  EXPECT_THAT(ReadCheckpoint(*objects_, written.manifest),
              Fails(StatusCode::kNotFound, "checkpoint 1"));
  written = Write(2).value();
  ASSERT_EQ(::truncate(objects_->PathOf(written.data).c_str(), 40), 0);
  EXPECT_THAT(ReadCheckpoint(*objects_, written.manifest), Fails(StatusCode::kDataLoss, ""));
  written = Write(3).value();
  Damage(written.manifest);
  EXPECT_THAT(ReadCheckpoint(*objects_, written.manifest),
              Fails(StatusCode::kDataLoss, "checkpoint manifest"));
  EXPECT_THAT(ReadCheckpoint(*objects_, std::string(64, '0')), Fails(StatusCode::kNotFound, ""));
}

TEST_F(CheckpointTest, ManifestsThatDoNotFitAreRefused) {
  const auto written = Write(1).value();
  const auto other = Write(2).value();
  nlohmann::json manifest = nlohmann::json::parse(objects_->Get(written.manifest).value());
  const auto with = [&](const char* key, nlohmann::json value) {
    nlohmann::json bad = manifest;
    bad[key] = std::move(value);
    return ReadCheckpoint(*objects_, objects_->Put(bad.dump()).value());
  };
  EXPECT_THAT(with("data", other.data), Fails(StatusCode::kDataLoss, "another checkpoint"));
  EXPECT_THAT(with("data", other.manifest),
              Fails(StatusCode::kInvalidArgument, "checkpoint 1: safetensors"));
  EXPECT_THAT(with("data", "../../x"), Fails(StatusCode::kInvalidArgument, "data"));
  EXPECT_THAT(with("step", -1), Fails(StatusCode::kInvalidArgument, "step"));
  EXPECT_THAT(with("metrics", {{"a", "b"}}), Fails(StatusCode::kInvalidArgument, "metrics"));
  EXPECT_THAT(with("version", 9), Fails(StatusCode::kFailedPrecondition, "version 9"));
  EXPECT_THAT(with("format", "lepton.model"), Fails(StatusCode::kInvalidArgument, "another kind"));
}

TEST_F(CheckpointTest, AShapeThatDoesNotFitItsValuesIsRefused) {
  EXPECT_THAT(WriteCheckpoint(*objects_, {"j1", 5, 0, {}, {}}, {{"weights", {7}, weights_}}),
              Fails(StatusCode::kInvalidArgument, "checkpoint 5: safetensors: tensor \"weights\""));
}

std::vector<CheckpointInfo> WithAccuracies(const std::vector<double>& accuracies) {
  std::vector<CheckpointInfo> all;
  for (const double accuracy : accuracies) {
    CheckpointInfo info;
    info.step = all.size();
    if (accuracy >= 0) info.metrics["acc"] = accuracy;
    all.push_back(info);
  }
  return all;
}

TEST(RetentionTest, KeepsTheNewestAndTheBest) {
  const auto all = WithAccuracies({0.5, 0.9, 0.7, 0.6, 0.8});
  EXPECT_THAT(CheckpointsToDelete(all, {2, 1, "acc", true}), ElementsAre(0, 2));
  EXPECT_THAT(CheckpointsToDelete(all, {2, 1, "acc", false}), ElementsAre(1, 2));
  EXPECT_THAT(CheckpointsToDelete(all, {1, 2, "acc", true}), ElementsAre(0, 2, 3));
  EXPECT_THAT(CheckpointsToDelete(all, {9, 0, "acc", true}), IsEmpty());
  EXPECT_THAT(CheckpointsToDelete({}, {2, 1, "acc", true}), IsEmpty());
}

TEST(RetentionTest, OfEqualsTheNewerIsTheBestAndTheLastIsNeverDeleted) {
  const auto all = WithAccuracies({0.9, 0.9, 0.1});
  EXPECT_THAT(CheckpointsToDelete(all, {0, 0, "acc", true}), ElementsAre(0, 1));
  EXPECT_THAT(CheckpointsToDelete(all, {1, 1, "acc", true}), ElementsAre(0));
}

TEST(RetentionTest, WithoutTheMetricNothingIsTheBest) {
  auto all = WithAccuracies({-1, 0.2, -1, 0.1});
  all[2].metrics["acc"] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(CheckpointsToDelete(all, {1, 1, "acc", true}), ElementsAre(0, 2));
  EXPECT_THAT(CheckpointsToDelete(all, {1, 1, "other", true}), ElementsAre(0, 1, 2));
}

}  // namespace
}  // namespace lepton::storage
