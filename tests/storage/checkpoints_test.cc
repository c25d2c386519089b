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

// Three writers' slices of one state of nine numbers.
class SlicedCheckpointTest : public CheckpointTest {
 protected:
  static constexpr float kState[] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
  static CheckpointSlice Slice(int64_t begin, int64_t end, int64_t size = 9) {
    return {
        "optimizer", begin, size,
        std::span(kState).subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin))};
  }
  static CheckpointInfo Info() {
    CheckpointInfo info;
    info.job_id = "j1";
    info.step = 7;
    info.seed = 3;
    return info;
  }
};

TEST_F(SlicedCheckpointTest, ReadsAsAWholeOrByTheSlice) {
  SlicedCheckpointWriter writer(*objects_, Info());
  ASSERT_THAT(writer.Add({{"weights", 0, 6, weights_}}), IsOk());
  ASSERT_THAT(writer.Add({Slice(4, 6), Slice(0, 2)}), IsOk());
  ASSERT_THAT(writer.Add({Slice(6, 9), Slice(2, 4), Slice(9, 9)}), IsOk());
  const auto written = writer.Finish();
  ASSERT_THAT(written, IsOk());
  EXPECT_EQ(written->slices.size(), 3u);
  const auto loaded = ReadCheckpoint(*objects_, written->manifest);
  ASSERT_THAT(loaded, IsOk());
  EXPECT_EQ(loaded->info.step, 7u);
  EXPECT_EQ(loaded->tensors.at("weights"), weights_);
  EXPECT_EQ(loaded->tensors.at("optimizer"), std::vector<float>(kState, kState + 9));
  size_t slices = 0;
  ASSERT_THAT(ReadCheckpointSlices(*objects_, written->manifest,
                                   [&](const CheckpointSlice& slice) {
                                     ++slices;
                                     return slice.size == (slice.tensor == "weights" ? 6 : 9)
                                                ? Status::Ok()
                                                : Internal(slice.tensor);
                                   }),
              IsOk());
  EXPECT_EQ(slices, 5u);
  EXPECT_THAT(ReadCheckpointSlices(*objects_, written->manifest,
                                   [](const CheckpointSlice&) { return Aborted("enough"); }),
              Fails(StatusCode::kAborted, "checkpoint 7: enough"));
}

TEST_F(SlicedCheckpointTest, AHoleOrAnOverlapIsRefusedByWriterAndReader) {
  SlicedCheckpointWriter holed(*objects_, Info());
  ASSERT_THAT(holed.Add({Slice(0, 4)}), IsOk());
  ASSERT_THAT(holed.Add({Slice(5, 9)}), IsOk());
  EXPECT_THAT(holed.Finish(), Fails(StatusCode::kInvalidArgument, "optimizer is not there"));
  EXPECT_THAT(holed.Add({Slice(4, 5, 10)}), Fails(StatusCode::kInvalidArgument, "does not fit"));
  SlicedCheckpointWriter twice(*objects_, Info());
  ASSERT_THAT(twice.Add({Slice(0, 5)}), IsOk());
  ASSERT_THAT(twice.Add({Slice(4, 9)}), IsOk());
  EXPECT_THAT(twice.Finish(), Fails(StatusCode::kInvalidArgument, "optimizer is not there"));

  SlicedCheckpointWriter good(*objects_, Info());
  ASSERT_THAT(good.Add({Slice(0, 4)}), IsOk());
  ASSERT_THAT(good.Add({Slice(4, 9)}), IsOk());
  const auto written = good.Finish();
  ASSERT_THAT(written, IsOk());
  nlohmann::json manifest = nlohmann::json::parse(objects_->Get(written->manifest).value());
  const auto with = [&](nlohmann::json slices) {
    nlohmann::json bad = manifest;
    bad["slices"] = std::move(slices);
    return ReadCheckpoint(*objects_, objects_->Put(bad.dump()).value());
  };
  const Digest first = written->slices[0], second = written->slices[1];
  EXPECT_THAT(with({first}), Fails(StatusCode::kDataLoss, "optimizer is not there as a whole"));
  EXPECT_THAT(with({second, first}), Fails(StatusCode::kDataLoss, "another checkpoint"));
  EXPECT_THAT(with({"../x"}), Fails(StatusCode::kInvalidArgument, "slices"));
  EXPECT_THAT(with({first, second}), IsOk());
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
