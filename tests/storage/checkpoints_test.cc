#include <unistd.h>

#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "runtime/base/file.h"
#include "runtime/formats/safetensors/safetensors.h"
#include "storage/checkpoints/checkpoint.h"
#include "storage/manifests/manifest_reader.h"
#include "tests/storage/status_matchers.h"

namespace lepton::storage {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class CheckpointTest : public testing::Test {
 protected:
  struct Written {
    Digest manifest, data;
  };
  // Objects of slices, and a manifest.
  Result<Digest> Write(CheckpointInfo info, const std::vector<std::vector<CheckpointSlice>>& all) {
    for (const std::vector<CheckpointSlice>& slices : all) {
      LEPTON_ASSIGN_OR_RETURN(const std::string bytes,
                              SerializeSlices(info, info.slices.size(), slices));
      LEPTON_ASSIGN_OR_RETURN(Digest object, objects_->Put(bytes));
      info.slices.push_back(std::move(object));
    }
    return WriteCheckpointManifest(*objects_, info);
  }
  Result<Written> Write(uint64_t step) {
    CheckpointInfo info;
    info.job_id = "j1";
    info.step = step;
    info.seed = UINT64_MAX;
    info.samples = {7, UINT64_MAX};
    info.epoch_loss = {0.1, 1e9 / 3};
    info.metrics = {{"validation/accuracy", 0.1 + 0.2},
                    {"loss", std::numeric_limits<double>::quiet_NaN()}};
    LEPTON_ASSIGN_OR_RETURN(
        Digest manifest, Write(info, {{{"weights", 0, 6, weights_}, {"optimizer", 0, 4, state_}}}));
    LEPTON_ASSIGN_OR_RETURN(info, ReadCheckpointInfo(*objects_, manifest));
    return Written{std::move(manifest), info.slices.at(0)};
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
  ASSERT_TRUE(loaded->info.samples.has_value());
  EXPECT_EQ(loaded->info.samples->rows, 7u);
  EXPECT_EQ(loaded->info.samples->ids, UINT64_MAX);
  ASSERT_TRUE(loaded->info.epoch_loss.has_value());
  EXPECT_EQ(loaded->info.epoch_loss->sum, 0.1);
  EXPECT_EQ(loaded->info.epoch_loss->predictions, 1e9 / 3);
  EXPECT_THAT(loaded->info.slices, ElementsAre(written->data));
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
  EXPECT_THAT(with("slices", {other.data}), Fails(StatusCode::kDataLoss, "another checkpoint"));
  EXPECT_THAT(with("slices", {other.manifest}),
              Fails(StatusCode::kInvalidArgument, "checkpoint 1: safetensors"));
  EXPECT_THAT(with("slices", "../../x"), Fails(StatusCode::kInvalidArgument, "slices"));
  EXPECT_THAT(with("step", -1), Fails(StatusCode::kInvalidArgument, "step"));
  EXPECT_THAT(with("metrics", {{"a", "b"}}), Fails(StatusCode::kInvalidArgument, "metrics"));
  EXPECT_THAT(with("samples", {{"rows", 1}}), Fails(StatusCode::kInvalidArgument, "samples.ids"));
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
  const auto written = Write(Info(), {{{"weights", 0, 6, weights_}},
                                      {Slice(4, 6), Slice(0, 2)},
                                      {Slice(6, 9), Slice(2, 4), Slice(9, 9)}});
  ASSERT_THAT(written, IsOk());
  const auto loaded = ReadCheckpoint(*objects_, *written);
  ASSERT_THAT(loaded, IsOk());
  EXPECT_EQ(loaded->info.step, 7u);
  EXPECT_EQ(loaded->tensors.at("weights"), weights_);
  EXPECT_EQ(loaded->tensors.at("optimizer"), std::vector<float>(kState, kState + 9));
  size_t slices = 0;
  ASSERT_THAT(ReadCheckpointSlices(*objects_, *written,
                                   [&](const CheckpointSlice& slice) {
                                     ++slices;
                                     return slice.size == (slice.tensor == "weights" ? 6 : 9)
                                                ? Status::Ok()
                                                : Internal(slice.tensor);
                                   }),
              IsOk());
  EXPECT_EQ(slices, 5u);
  EXPECT_THAT(ReadCheckpointSlices(*objects_, *written,
                                   [](const CheckpointSlice&) { return Aborted("enough"); }),
              Fails(StatusCode::kAborted, "checkpoint 7: enough"));
}

TEST_F(SlicedCheckpointTest, AHoleOrAnOverlapIsRefused) {
  const auto reading = [&](const std::vector<std::vector<CheckpointSlice>>& slices) {
    return ReadCheckpoint(*objects_, Write(Info(), slices).value());
  };
  EXPECT_THAT(reading({{Slice(0, 4)}, {Slice(5, 9)}}),
              Fails(StatusCode::kDataLoss, "optimizer is not there as a whole"));
  EXPECT_THAT(reading({{Slice(0, 5)}, {Slice(4, 9)}}),
              Fails(StatusCode::kDataLoss, "optimizer is not there as a whole"));
  EXPECT_THAT(reading({{Slice(0, 4)}, {Slice(4, 9, 10)}}),
              Fails(StatusCode::kDataLoss, "does not fit"));

  const Digest written = Write(Info(), {{Slice(0, 4)}, {Slice(4, 9)}}).value();
  nlohmann::json manifest = nlohmann::json::parse(objects_->Get(written).value());
  const auto with = [&](nlohmann::json slices) {
    nlohmann::json bad = manifest;
    bad["slices"] = std::move(slices);
    return ReadCheckpoint(*objects_, objects_->Put(bad.dump()).value());
  };
  const Digest first = manifest["slices"][0], second = manifest["slices"][1];
  EXPECT_THAT(with({first}), Fails(StatusCode::kDataLoss, "optimizer is not there as a whole"));
  EXPECT_THAT(with({second, first}), Fails(StatusCode::kDataLoss, "another checkpoint"));
  EXPECT_THAT(with({"../x"}), Fails(StatusCode::kInvalidArgument, "slices"));
  EXPECT_THAT(with({first, second}), IsOk());
}

// As it was before ranks wrote together.
TEST_F(CheckpointTest, VersionOneIsRead) {
  const std::string_view values(reinterpret_cast<const char*>(weights_.data()), 6 * sizeof(float));
  const auto bytes = safetensors::Serialize({{"weights", "F32", {2, 3}, values}},
                                            {{"lepton.checkpoint", "j1/5/3"}});
  ASSERT_THAT(bytes, IsOk());
  nlohmann::json manifest = {{"format", "lepton.checkpoint"},
                             {"version", 1},
                             {"job_id", "j1"},
                             {"step", 5},
                             {"seed", 3},
                             {"metrics", {{"loss", 0.5}}},
                             {"data", objects_->Put(*bytes).value()}};
  const auto loaded = ReadCheckpoint(*objects_, objects_->Put(manifest.dump()).value());
  ASSERT_THAT(loaded, IsOk());
  EXPECT_EQ(loaded->info.step, 5u);
  EXPECT_EQ(loaded->tensors.at("weights"), weights_);
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

// It was done again, since its figures were wrong.
TEST(RetentionTest, OfOneStepTheLaterAloneCanBeTheBest) {
  auto all = WithAccuracies({0.5, 0.9, 0.4, 0.1});
  all[2].step = all[1].step;
  EXPECT_THAT(CheckpointsToDelete(all, {1, 1, "acc", true}), ElementsAre(1, 2));
}

TEST(RetentionTest, WithoutTheMetricNothingIsTheBest) {
  auto all = WithAccuracies({-1, 0.2, -1, 0.1});
  all[2].metrics["acc"] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(CheckpointsToDelete(all, {1, 1, "acc", true}), ElementsAre(0, 2));
  EXPECT_THAT(CheckpointsToDelete(all, {1, 1, "other", true}), ElementsAre(0, 1, 2));
}

}  // namespace
}  // namespace lepton::storage
