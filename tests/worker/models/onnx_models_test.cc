// Models leave as ONNX with their data's preparation inside, come back as the same models, and
// train on.
#include "worker/models/onnx_models.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "runtime/base/logging.h"
#include "runtime/formats/onnx/import.h"
#include "runtime/formats/onnx/onnx.pb.h"
#include "tests/runtime/onnx/test_model.h"
#include "tests/worker/train/fake_task.h"
#include "tests/worker/train/sample_data.h"
#include "worker/distill/teacher.h"
#include "worker/evaluate/evaluate_task.h"
#include "worker/infer/model_runtime.h"
#include "worker/train/train_task.h"

namespace lepton::worker {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Rank;

constexpr char kBlobsJob[] = R"(
kind: train
dataset: {name: blobs}
model: {hidden: [16, 8], layer_norm: true, activation: gelu}
optimizer: {name: adamw, lr: 0.01}
batch_size: 20
epochs: 6
elastic: {logical_shards: 4}
resources: {max_workers: 4}
)";
constexpr char kOnnxJob[] = R"(
kind: train
dataset: {name: blobs}
model: {onnx: model.onnx}
optimizer: {name: adamw, lr: 0.001}
batch_size: 20
steps: 10
elastic: {logical_shards: 4}
resources: {max_workers: 4}
)";

class OnnxModelsTest : public testing::TaskTest {
 protected:
  wire::StartTask Start() {
    wire::StartTask start;
    start.set_kind("train");
    start.set_dataset_manifest(Import(testing::BlobsCsv(303, 3)));
    return start;
  }
  storage::Digest Trained() {
    const auto ranks = RunGang(RunTrain, Spec(kBlobsJob), Start(), 1);
    EXPECT_TRUE(ranks[0].status.ok()) << ranks[0].status.ToString();
    return ranks[0].task->result.model_manifest();
  }
  onnx::ExportedModel MustExport(const storage::Digest& manifest) {
    auto exported = ExportOnnx(*objects_, manifest);
    EXPECT_TRUE(exported.ok()) << exported.status().ToString();
    return *std::move(exported);
  }
  // Logits of raw rows by the stored model, as replicas compute them.
  std::vector<float> Served(const storage::Digest& manifest, const std::vector<double>& raw) {
    auto model = LoadedModel::Load(*objects_, manifest);
    EXPECT_TRUE(model.ok()) << model.status().ToString();
    if (!model.ok()) return {};
    const auto rows = static_cast<int64_t>(raw.size()) / (*model)->numbers();
    std::vector<float> logits(rows * (*model)->outputs());
    ModelRows given;
    given.rows = rows;
    given.raw = raw;
    const Status ran = (*model)->Run(given, logits);
    EXPECT_TRUE(ran.ok()) << ran.ToString();
    return logits;
  }
};

std::vector<float> RunFile(const onnx::ExportedModel& exported, const std::vector<double>& raw,
                           int64_t features) {
  onnx_proto::ModelProto proto;
  EXPECT_TRUE(onnx::ParseModel(exported.model, &proto).ok());
  onnx::NamedValues inputs;
  const std::string name = proto.graph().input(0).name();
  inputs[name].kind = onnx::HostValue::Kind::kTensor;
  inputs[name].tensor = onnx::TensorOf(
      DType::kF32, Shape({static_cast<int64_t>(raw.size()) / features, features}), raw);
  auto model = onnx::Import(proto, inputs);
  EXPECT_TRUE(model.ok()) << model.status().ToString();
  auto outputs = onnx::Run(*model, inputs);
  EXPECT_TRUE(outputs.ok()) << outputs.status().ToString();
  std::vector<float> logits;
  for (const double number : onnx::AsDoubles(outputs->begin()->second.tensor)) {
    logits.push_back(static_cast<float>(number));
  }
  return logits;
}

void ExpectAlike(const std::vector<float>& a, const std::vector<float>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-4) << i;
}

const std::vector<double> kRows = {0.5, -1, 2, 3, 1, -2, std::nan(""), 4, 0.25};

TEST_F(OnnxModelsTest, ATrainedModelLeavesWithItsNormalisationAndComesBackTheSame) {
  const storage::Digest manifest = Trained();
  const std::vector<float> wanted = Served(manifest, kRows);
  const onnx::ExportedModel exported = MustExport(manifest);
  ExpectAlike(RunFile(exported, kRows, 3), wanted);

  auto imported = ImportOnnx(*objects_, exported.model, {});
  ASSERT_TRUE(imported.ok()) << imported.status().ToString();
  ExpectAlike(Served(imported->manifest, kRows), wanted);
  auto before = LoadModel(*objects_, manifest);
  ASSERT_TRUE(before.ok());
  EXPECT_EQ(imported->content.feature_names, before->manifest.feature_names);
  EXPECT_EQ(imported->content.classes, before->manifest.classes);
  EXPECT_EQ(imported->content.loss, before->manifest.loss);
  EXPECT_EQ(imported->content.parameters, before->manifest.parameters);
  for (const storage::Digest& digest : imported->objects) EXPECT_TRUE(objects_->Has(digest));
  // Once more through the file: nothing is normalised twice.
  ExpectAlike(RunFile(MustExport(imported->manifest), kRows, 3), wanted);
}

TEST_F(OnnxModelsTest, AnImportedModelTrainsOnTheSameForAnyNumberOfRanks) {
  auto imported = ImportOnnx(*objects_, MustExport(Trained()).model, {});
  ASSERT_TRUE(imported.ok()) << imported.status().ToString();
  wire::StartTask start = Start();
  start.set_model_manifest(imported->manifest);
  const auto one = RunGang(RunTrain, Spec(kOnnxJob), start, 1);
  ASSERT_TRUE(one[0].status.ok()) << one[0].status.ToString();
  const auto two = RunGang(RunTrain, Spec(kOnnxJob), start, 2);
  ASSERT_TRUE(two[0].status.ok()) << two[0].status.ToString();
  EXPECT_EQ(ModelOf(one[0]).weights_sha256, ModelOf(two[0]).weights_sha256);
  EXPECT_NE(ModelOf(one[0]).weights_sha256, imported->content.weights_sha256);
  EXPECT_GE(one[0].metric("test/accuracy"), 0.95);

  const storage::Digest trained = one[0].task->result.model_manifest();
  const auto& objects = one[0].task->result.objects();
  EXPECT_THAT(std::vector<std::string>(objects.begin(), objects.end()),
              ::testing::Contains(imported->content.files.at(kOnnxGraphFile)));
  ExpectAlike(RunFile(MustExport(trained), kRows, 3), Served(trained, kRows));
}

TEST_F(OnnxModelsTest, FilesOfOthersGetNamesThatAreAsked) {
  const auto bytes =
      ReadFile(std::filesystem::path(LEPTON_SOURCE_DIR) / "tests/golden/onnx/mlp/model.onnx");
  ASSERT_TRUE(bytes.ok());
  auto plain = ImportOnnx(*objects_, *bytes, {});
  ASSERT_TRUE(plain.ok()) << plain.status().ToString();
  EXPECT_THAT(plain->content.feature_names, ElementsAre("x.0", "x.1", "x.2", "x.3", "x.4"));
  EXPECT_THAT(plain->content.classes, ElementsAre("0", "1", "2"));
  auto named = ImportOnnx(*objects_, *bytes, {},
                          {{"a", "b", "c", "d", "e"}, {"red", "green", "blue"}, "colour", ""});
  ASSERT_TRUE(named.ok()) << named.status().ToString();
  EXPECT_EQ(named->content.feature_names[4], "e");
  EXPECT_EQ(named->content.label_name, "colour");
  const Status few = ImportOnnx(*objects_, *bytes, {}, {{"a"}, {}, "", ""}).status();
  EXPECT_THAT(few.message(), HasSubstr("takes 5 features, but 1 are named"));
  EXPECT_EQ(ImportOnnx(*objects_, "no model", {}).status().code(), StatusCode::kInvalidArgument);
}

TEST_F(OnnxModelsTest, ClassesOfRowsThatAreMeasuredCountIfTheyAreAsManyAsTheModels) {
  const auto bytes =
      ReadFile(std::filesystem::path(LEPTON_SOURCE_DIR) / "tests/golden/onnx/mlp/model.onnx");
  ASSERT_TRUE(bytes.ok());
  const auto with = [&](std::vector<std::string> classes, bool trains) {
    OnnxNames names{.classes = std::move(classes), .weak = true, .trains = trains};
    auto stored = ImportOnnx(*objects_, *bytes, {}, names);
    return stored.ok() ? stored->content.classes : std::vector<std::string>();
  };
  EXPECT_THAT(with({"red", "green", "blue"}, false), ElementsAre("red", "green", "blue"));
  EXPECT_THAT(with({"0", "2"}, false), ElementsAre("0", "1", "2"));
  EXPECT_THAT(with({"0", "2"}, true), ElementsAre());  // refused
}

// A file's metadata is any bytes.
TEST_F(OnnxModelsTest, MetadataThatMakesNoSenseIsNoHarm) {
  const auto bytes =
      ReadFile(std::filesystem::path(LEPTON_SOURCE_DIR) / "tests/golden/onnx/mlp/model.onnx");
  const auto with = [&](const std::string& key, const std::string& value) {
    onnx_proto::ModelProto proto;
    EXPECT_TRUE(onnx::ParseModel(*bytes, &proto).ok());
    auto& entry = *proto.add_metadata_props();
    entry.set_key(key);
    entry.set_value(value);
    return ImportOnnx(*objects_, proto.SerializeAsString(), {});
  };
  const auto labelled = with("lepton.label", "\xff");
  ASSERT_TRUE(labelled.ok()) << labelled.status().ToString();
  EXPECT_TRUE(LoadModel(*objects_, labelled->manifest).ok());
  const Status loss = with("lepton.loss", "huber").status();
  EXPECT_EQ(loss.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(loss.message(), HasSubstr("model.onnx: lepton.model manifest: loss: is none of"));
}

// A table of `rows` tokens and a product that gives `outputs` numbers per token.
std::string TokenModel(int64_t rows, int64_t outputs) {
  onnx::TestModel m;
  m.Input("input_ids", onnx::kInt64Code, {-1, -1}).Output("y");
  m.Floats("table", {rows, 2}, std::vector<float>(rows * 2, 0.5f));
  m.Floats("w", {2, outputs}, std::vector<float>(2 * outputs, 0.25f));
  m.Node("Gather", {"table", "input_ids"}, "vectors").Node("MatMul", {"vectors", "w"}, "y");
  return m.proto.SerializeAsString();
}

TEST_F(OnnxModelsTest, AnOutputPerTokenIsALanguageModelsOnlyIfItHasOneNumberPerToken) {
  const auto language = ImportOnnx(*objects_, TokenModel(7, 7), {});
  ASSERT_TRUE(language.ok()) << language.status().ToString();
  EXPECT_EQ(language->content.loss, "next_token");
  for (const int64_t outputs : {2, 6, 8}) {
    const Status status = ImportOnnx(*objects_, TokenModel(7, outputs), {}).status();
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(status.message(), HasSubstr("it gives " + std::to_string(outputs) +
                                            " numbers per token, but looks up 7 tokens"));
  }
}

// A classifier of `input_ids` whose [batch, sequence, 2] `vectors` are made one by what `add` adds,
// from "vectors" to "y".
template <typename Add>
std::string TextModel(Add&& add) {
  onnx::TestModel m;
  m.Input("input_ids", onnx::kInt64Code, {-1, -1}).Output("y");
  m.Floats("table", {4, 2}, {0, 0, 1, -2, 3, -4, 5, -6}).Integers("axis1", {1}, {1});
  m.Integers("last", {}, {-1}).Integers("first", {}, {0});
  m.Node("Gather", {"table", "input_ids"}, "vectors");
  add(m);
  return m.proto.SerializeAsString();
}

TEST_F(OnnxModelsTest, TextsWhosePaddingIsPartOfTheAnswerAreRefused) {
  const auto refusal = [&](auto&& add) {
    return ImportOnnx(*objects_, TextModel(add), {}).status().ToString();
  };
  const auto padding = HasSubstr("its answer depends on the padding behind a text");
  EXPECT_THAT(refusal([](auto& m) {
                m.Node("ReduceMean", {"vectors"}, "y", {{"keepdims", 0}}).List("axes", {1});
              }),
              padding);
  EXPECT_THAT(refusal([](auto& m) {
                m.Node("ReduceMax", {"vectors"}, "y", {{"keepdims", 0}}).List("axes", {1});
              }),
              padding);
  EXPECT_THAT(refusal([](auto& m) {
                m.Node("Gather", {"vectors", "last"}, "y", {{"axis", 1}});
              }),
              padding);
  // The first token's answer is its own; so is a sum to which padding adds nothing.
  EXPECT_EQ(refusal([](auto& m) {
              m.Node("Gather", {"vectors", "first"}, "y", {{"axis", 1}});
            }),
            "OK");
  EXPECT_EQ(refusal([](auto& m) {
              m.Node("ReduceSum", {"vectors", "axis1"}, "y", {{"keepdims", 0}});
            }),
            "OK");
}

TEST_F(OnnxModelsTest, AMaskedLanguageModelIsNoLanguageModel) {
  const auto refusal = ImportOnnx(*objects_, TextModel([](auto& m) {
                         m.Floats("w", {2, 4}, {1, 2, 3, 4, 5, 6, 7, 8});
                         m.Node("ReduceSum", {"vectors", "axis1"}, "all");
                         m.Node("Add", {"vectors", "all"}, "seen");
                         m.Node("MatMul", {"seen", "w"}, "y");
                       }),
                                  {})
                           .status()
                           .message();
  EXPECT_THAT(refusal, HasSubstr("depends on the tokens behind it"));
}

TEST_F(OnnxModelsTest, TextModelsOfGoldensAreTaken) {
  for (const std::string name : {"bert", "bert_opset17", "gpt", "gpt2"}) {
    const auto bytes = ReadFile(std::filesystem::path(LEPTON_SOURCE_DIR) / "tests/golden/onnx" /
                                name / "model.onnx");
    const auto stored = ImportOnnx(*objects_, *bytes, {});
    ASSERT_TRUE(stored.ok()) << name << ": " << stored.status().ToString();
    EXPECT_EQ(stored->content.input.context, 10) << name;
    EXPECT_EQ(stored->content.input.vocabulary, 20) << name;
    // As an older version stored it, which did not look for the places.
    storage::ModelManifest older = stored->content;
    older.input.context = 128;
    const auto model = LoadedModel::Load(*objects_, objects_->Put(storage::ToText(older)).value());
    ASSERT_TRUE(model.ok()) << model.status().ToString();
    EXPECT_EQ((*model)->manifest().input.context, 10);
  }
}

TEST_F(OnnxModelsTest, AModelThatCannotBeTrainedIsRefusedWhereItIsToBe) {
  onnx::TestModel m;
  m.Input("x", onnx::kFloatCode, {-1, 2}).Output("y").Floats("w", {2, 3}, {1, 2, 3, 4, 5, 6});
  m.Node("MatMul", {"x", "w"}, "h").Node("ReduceMax", {"h"}, "y").List("axes", {1});
  const std::string bytes = m.proto.SerializeAsString();
  EXPECT_TRUE(ImportOnnx(*objects_, bytes, {}).ok());
  const Status status = ImportOnnx(*objects_, bytes, {}, {.trains = true}).status();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("model.onnx: cannot be trained: "));
}

TEST_F(OnnxModelsTest, AModelThatCannotBeTrainedIsMeasuredAndTeaches) {
  onnx::TestModel m;
  m.Input("x", onnx::kFloatCode, {-1, 3}).Output("y");
  m.Floats("w", {3, 3}, {1, 0, 0, 0, 1, 0, 0, 0, 1}).Floats("unread", {3}, {1, 2, 3});
  m.Node("MatMul", {"x", "w"}, "h");
  m.Node("ReduceMax", {"h"}, "most").List("axes", {1});
  m.Node("Sub", {"h", "most"}, "y");
  const auto stored = ImportOnnx(*objects_, m.proto.SerializeAsString(), {},
                                 {.features = {"a", "b", "c"}, .label = "target"});
  ASSERT_TRUE(stored.ok()) << stored.status().ToString();
  wire::StartTask start = Start();
  start.set_model_manifest(stored->manifest);
  const auto ranks =
      RunGang(RunEvaluate, Spec("{kind: evaluate, dataset: {name: blobs}, model: {from: net@1}}"),
              start, 1);
  ASSERT_TRUE(ranks[0].status.ok()) << ranks[0].status.ToString();
  EXPECT_TRUE(std::isfinite(ranks[0].metric("test/loss")));
  const auto teacher = Teacher::Load(*objects_, stored->manifest, nullptr);
  EXPECT_TRUE(teacher.ok()) << teacher.status().ToString();
}

TEST_F(OnnxModelsTest, SaysThatBf16IsNotWhatItComputes) {
  const auto bytes =
      ReadFile(std::filesystem::path(LEPTON_SOURCE_DIR) / "tests/golden/onnx/mlp/model.onnx");
  ASSERT_TRUE(bytes.ok());
  const auto stored = ImportOnnx(*objects_, *bytes, {});
  ASSERT_TRUE(stored.ok()) << stored.status().ToString();
  const auto model = LoadModel(*objects_, stored->manifest);
  ASSERT_TRUE(model.ok()) << model.status().ToString();
  InitLogging({});
  const auto said = [&](const std::string& precision) {
    ::testing::internal::CaptureStderr();
    EXPECT_TRUE(BuildEvaluator(*model, precision, nullptr).ok());
    return ::testing::internal::GetCapturedStderr();
  };
  EXPECT_THAT(said("bf16"), HasSubstr("computes in f32"));
  EXPECT_THAT(said("model"), ::testing::Not(HasSubstr("computes in f32")));
}

TEST_F(OnnxModelsTest, DifferencesAndQuotientsByOneNumberStayInTheModel) {
  onnx::TestModel m;
  m.Input("x", onnx::kFloatCode, {-1, 2}).Output("y").Floats("half", {1}, {0.5f});
  m.Node("Sub", {"x", "half"}, "centred").Node("Div", {"centred", "half"}, "n");
  m.Node("Relu", {"n"}, "y");
  const auto imported = ImportOnnx(*objects_, m.proto.SerializeAsString(), {});
  ASSERT_TRUE(imported.ok()) << imported.status().ToString();
  ExpectAlike(Served(imported->manifest, {0.5, 1, 2, 0}), {0, 1, 3, 0});
}

}  // namespace
}  // namespace lepton::worker
