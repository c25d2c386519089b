#include <limits>
#include <nlohmann/json.hpp>
#include <random>

#include "storage/models/model_manifest.h"
#include "tests/storage/status_matchers.h"

namespace lepton::storage {
namespace {

ModelManifest Example() {
  ModelManifest m;
  m.model_spec_json = R"({"arch":"mlp","hidden":[64,32]})";
  m.loss = "cross_entropy";
  m.precision = "bf16";
  m.feature_names = {"a", "b, \"c\""};
  m.mean = {0.1, -3e-7};
  m.scale = {1, 2.5};
  m.label_name = "target";
  m.classes = {"benign", "malignant"};
  m.weights = std::string(64, 'a');
  m.weights_sha256 = std::string(64, 'b');
  m.parameters = 1234;
  m.metrics = {{"test/accuracy", 0.1 + 0.2}, {"loss", std::numeric_limits<double>::infinity()}};
  m.job_id = "j3";
  m.dataset = std::string(64, 'c');
  m.dataset_name = "digits@1";
  m.teacher = "";
  m.steps = 900;
  return m;
}

TEST(ModelManifestTest, ReadsBackWhatWasWritten) {
  const ModelManifest m = Example();
  const auto back = ModelManifestFromJson(ToJson(m).dump());
  ASSERT_THAT(back, IsOk());
  EXPECT_EQ(ToJson(*back), ToJson(m));
  EXPECT_EQ(back->model_spec_json, m.model_spec_json);
  EXPECT_EQ(back->feature_names, m.feature_names);
  EXPECT_EQ(back->mean, m.mean);
  EXPECT_EQ(back->scale, m.scale);
  EXPECT_EQ(back->classes, m.classes);
  EXPECT_EQ(back->metrics, m.metrics);
  EXPECT_EQ(back->teacher, "");
}

TEST(ModelManifestTest, BadDocumentsAreRefusedNamingTheField) {
  const nlohmann::json good = ToJson(Example());
  const auto with = [&](const char* key, nlohmann::json value) {
    nlohmann::json bad = good;
    bad[key] = std::move(value);
    return ModelManifestFromJson(bad.dump());
  };
  EXPECT_THAT(ModelManifestFromJson(""), Fails(StatusCode::kInvalidArgument, "not valid JSON"));
  EXPECT_THAT(ModelManifestFromJson("\xff"), Fails(StatusCode::kInvalidArgument, "not valid JSON"));
  EXPECT_THAT(ModelManifestFromJson("{}"), Fails(StatusCode::kInvalidArgument, "another kind"));
  EXPECT_THAT(with("version", 3),
              Fails(StatusCode::kFailedPrecondition, "version 3, but this program reads up to 2"));
  EXPECT_THAT(with("input", {{"kind", "sounds"}}),
              Fails(StatusCode::kInvalidArgument, "input.kind: is not a kind of input"));
  EXPECT_THAT(with("input", {{"kind", "tokens"}}),
              Fails(StatusCode::kInvalidArgument, "input.vocabulary: is missing"));
  EXPECT_THAT(with("version", -1), Fails(StatusCode::kInvalidArgument, "version"));
  EXPECT_THAT(with("weights", ""), Fails(StatusCode::kInvalidArgument, "weights"));
  EXPECT_THAT(with("dataset", "../x"), Fails(StatusCode::kInvalidArgument, "dataset"));
  EXPECT_THAT(with("loss", 1), Fails(StatusCode::kInvalidArgument, "loss"));
  EXPECT_THAT(with("classes", {1, 2}), Fails(StatusCode::kInvalidArgument, "classes"));
  EXPECT_THAT(with("metrics", {{"a", nullptr}}), Fails(StatusCode::kInvalidArgument, "metrics"));
  EXPECT_THAT(with("parameters", 1.5), Fails(StatusCode::kInvalidArgument, "parameters"));
  EXPECT_THAT(with("parameters", UINT64_MAX), Fails(StatusCode::kInvalidArgument, "parameters"));
  EXPECT_THAT(with("mean", {1.0}), Fails(StatusCode::kInvalidArgument, "2 features, but 1 means"));
  EXPECT_THAT(with("scale", {1.0, 0.0}), Fails(StatusCode::kInvalidArgument, "scale"));
  EXPECT_THAT(with("mean", {1.0, "NaN"}), Fails(StatusCode::kInvalidArgument, "finite"));
  EXPECT_THAT(with("loss", "huber"), Fails(StatusCode::kInvalidArgument, "loss: is none of"));
  EXPECT_THAT(with("loss", "binary_cross_entropy"), IsOk());
  for (const auto& [key, value] : good.items()) {
    nlohmann::json bad = good;
    bad.erase(key);
    EXPECT_THAT(ModelManifestFromJson(bad.dump()), Fails(StatusCode::kInvalidArgument, "")) << key;
  }
}

TEST(ModelManifestTest, ABinaryModelHasTwoClasses) {
  ModelManifest m = Example();
  m.loss = "binary_cross_entropy";
  m.classes.push_back("third");
  EXPECT_THAT(ModelManifestFromJson(ToJson(m).dump()),
              Fails(StatusCode::kInvalidArgument, "classes: 3 of a binary model"));
}

// Of a table, each pixel is a column.
TEST(ModelManifestTest, PicturesHaveAsManyPixelsAsTheyHaveColumns) {
  ModelManifest m = Example();
  m.mean.clear();
  m.scale.clear();
  m.input.kind = "images";
  m.input.channels = 1;
  m.input.height = 1;
  m.input.width = 2;
  m.input.mean = {0};
  m.input.scale = {1};
  EXPECT_THAT(ModelManifestFromJson(ToJson(m).dump()), IsOk());
  m.feature_names.push_back("c");
  EXPECT_THAT(ModelManifestFromJson(ToJson(m).dump()),
              Fails(StatusCode::kInvalidArgument, "3 features, but 2 pixels"));
  m.feature_names.clear();
  EXPECT_THAT(ModelManifestFromJson(ToJson(m).dump()), IsOk()) << "of files";
  m.input.width = m.input.height = int64_t{1} << 30;
  EXPECT_THAT(ModelManifestFromJson(ToJson(m).dump()),
              Fails(StatusCode::kInvalidArgument, "do not agree"));
}

TEST(ModelManifestTest, InputsOfEveryKindReadBack) {
  ModelManifest m = Example();
  m.feature_names.clear();
  m.mean.clear();
  m.scale.clear();
  m.input.kind = "images";
  m.input.channels = 2;
  m.input.height = 8;
  m.input.width = 6;
  m.input.mean = {0.5, 0.25};
  m.input.scale = {0.1, 1};
  m.input.fit = "crop";
  auto back = ModelManifestFromJson(ToJson(m).dump());
  ASSERT_THAT(back, IsOk());
  EXPECT_EQ(ToJson(*back), ToJson(m));
  EXPECT_EQ(back->input.mean, m.input.mean);
  m.input.fit = "shortest";
  m.input.edge = 9;
  back = ModelManifestFromJson(ToJson(m).dump());
  ASSERT_THAT(back, IsOk());
  EXPECT_EQ(back->input.edge, 9);
  EXPECT_EQ(back->input.resample, "bilinear");
  m.input.resample = "bicubic";
  EXPECT_EQ(ModelManifestFromJson(ToJson(m).dump())->input.resample, "bicubic");
  m.input.resample = "lanczos";
  EXPECT_THAT(ModelManifestFromJson(ToJson(m).dump()),
              Fails(StatusCode::kInvalidArgument, "resample"));
  m.input.resample = "bilinear";
  m.input.edge = 7;
  EXPECT_THAT(ModelManifestFromJson(ToJson(m).dump()),
              Fails(StatusCode::kInvalidArgument, "edge is below"));
  m.input.edge = 9;
  m.input.mean = {0.5};
  EXPECT_THAT(ModelManifestFromJson(ToJson(m).dump()),
              Fails(StatusCode::kInvalidArgument, "do not agree"));

  m.input = {};
  m.input.kind = "tokens";
  m.input.vocabulary = 256;
  m.input.context = 64;
  m.input.per_token = true;
  m.input.tokenizer = "bytes";
  m.input.text = "body";
  back = ModelManifestFromJson(ToJson(m).dump());
  ASSERT_THAT(back, IsOk());
  EXPECT_EQ(ToJson(*back), ToJson(m));
  EXPECT_TRUE(back->input.per_token);
  m.input.tokenizer = "gpt2";
  EXPECT_THAT(ModelManifestFromJson(ToJson(m).dump()),
              Fails(StatusCode::kInvalidArgument, "tokenizer"));
}

TEST(ModelManifestTest, DocumentsOfTheFirstVersionStillRead) {
  nlohmann::json old = ToJson(Example());
  old["version"] = 1;
  old.erase("input");
  const auto back = ModelManifestFromJson(old.dump());
  ASSERT_THAT(back, IsOk());
  EXPECT_EQ(back->input.kind, "features");
}

TEST(ModelManifestTest, DamagedDocumentsNeverThrow) {
  const std::string good = ToJson(Example()).dump();
  std::mt19937 random(4);
  for (int round = 0; round < 5000; ++round) {
    std::string bytes = good;
    bytes[random() % bytes.size()] = static_cast<char>(random());
    if (round % 3 == 0) bytes.resize(random() % bytes.size());
    (void)ModelManifestFromJson(bytes).ok();
  }
}

}  // namespace
}  // namespace lepton::storage
