// Hugging Face folders become stored models, leave as folders that give the same answers, and train
// on: a new head on a body, a language model with new texts.
#include "worker/models/huggingface_models.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "runtime/nn/model_list.h"
#include "tests/runtime/huggingface/loaded_folder.h"
#include "tests/worker/data/tiny_tokenizer.h"
#include "tests/worker/train/fake_task.h"
#include "worker/distill/distill_task.h"
#include "worker/evaluate/evaluate_task.h"
#include "worker/infer/model_runtime.h"
#include "worker/train/model_files.h"
#include "worker/train/train_task.h"

namespace lepton::worker {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Rank;

class FolderModelsTest : public testing::TaskTest {
 protected:
  StoredFolder MustImport(const fs::path& folder) {
    auto stored = ImportFolder(*objects_, huggingface::OpenFilesOf(folder).value());
    EXPECT_TRUE(stored.ok()) << folder << ": " << stored.status().ToString();
    return stored.ok() ? *std::move(stored) : StoredFolder();
  }
  // A golden that may be changed.
  fs::path Copy(const std::string& golden, const std::string& as) {
    const fs::path folder = scratch_.path() / as;
    fs::remove_all(folder);
    fs::copy(huggingface::Golden(golden), folder, fs::copy_options::recursive);
    return folder;
  }
  // What the stored model answers to a golden's inputs.
  std::vector<float> Answer(const storage::Digest& manifest, huggingface::Expected& expected) {
    const StoredModel stored = LoadModel(*objects_, manifest).value();
    const nn::Signature signature = stored.signature().value();
    const auto program = nn::InferenceProgram::Build(signature, stored.model, "f32").value();
    auto weights = nn::StoredWeights::Make(stored.tensors, program->parameters()).value();
    EXPECT_TRUE(program->Bind(std::move(weights)).ok());
    EXPECT_TRUE(program->Prepare().ok());
    const nn::Batch batch = expected.batch(signature);
    std::vector<float> logits(nn::Predictions(signature, batch) * signature.outputs);
    const Status run = program->Forward(batch, logits);
    EXPECT_TRUE(run.ok()) << run.ToString();
    return logits;
  }

  TempFolder scratch_{"folders"};
};

class FolderModel : public FolderModelsTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(FolderModel, AnswersTheSameStoredAndExportedAndStoredAgain) {
  const StoredFolder stored = MustImport(huggingface::Golden(GetParam()));
  huggingface::Expected expected(huggingface::Golden(GetParam()));
  const std::vector<float> answer = Answer(stored.manifest, expected);
  const std::string wanted = expected.Has("logits") ? "logits" : "pooled";
  if (expected.Has(wanted)) {
    const std::vector<float> reference = expected.Floats(wanted);
    ASSERT_EQ(answer.size(), reference.size());
    const auto outputs = static_cast<size_t>(expected.ShapeOf(wanted).back());
    for (size_t i = 0; i < answer.size(); ++i) {
      const bool padding = expected.Has("mask") && expected.ShapeOf(wanted).size() == 3 &&
                           expected.mask[i / outputs] < 0;
      ASSERT_NEAR(answer[i], padding ? answer[i] : reference[i], 1e-4) << i;
    }
  }
  const fs::path folder = scratch_.path() / "exported";
  const Status exported = ExportFolder(*objects_, stored.manifest, folder);
  ASSERT_TRUE(exported.ok()) << exported.ToString();
  const StoredFolder again = MustImport(folder);
  EXPECT_EQ(again.content.weights_sha256, stored.content.weights_sha256);
  EXPECT_EQ(again.content.classes, stored.content.classes);
  EXPECT_EQ(again.content.model_spec_json, stored.content.model_spec_json);
  EXPECT_EQ(Answer(again.manifest, expected), answer);
  EXPECT_EQ(again.content.input.context, stored.content.input.context);
}

INSTANTIATE_TEST_SUITE_P(Goldens, FolderModel,
                         ::testing::Values("bert-texts", "bert-tokens", "bert-base", "bert-masked",
                                           "bert-sentences", "qwen3-sentences", "llama-yarn-lm",
                                           "mistral-longrope-lm", "qwen2-dynamic-lm",
                                           "distilbert-texts", "gpt2-lm", "gpt2-texts", "llama3-lm",
                                           "llama-biases-lm", "llama-texts", "mistral-lm",
                                           "qwen2-lm", "qwen3-lm", "vit-images", "vit-base"));

// The model does not say them in other words: which similarity, which prompts there are.
TEST_F(FolderModelsTest, PromptsOfSentenceModelsLeaveAsTheyCame) {
  const fs::path golden = huggingface::Golden("bert-sentences"), folder = scratch_.path() / "out";
  ASSERT_TRUE(ExportFolder(*objects_, MustImport(golden).manifest, folder).ok());
  const char* const file = "config_sentence_transformers.json";
  ASSERT_TRUE(fs::exists(folder / file));
  EXPECT_EQ(ReadFile(folder / file).value(), ReadFile(golden / file).value());
}

// Files of token classifiers still have the pooler of the model that they were tuned from.
TEST_F(FolderModelsTest, APoolerThatTheClassDoesNotHaveIsPassedOver) {
  const fs::path golden = huggingface::Golden("bert-tokens"), folder = Copy("bert-tokens", "more");
  const std::string bytes = ReadFile(golden / "model.safetensors").value();
  std::vector<safetensors::TensorView> tensors = safetensors::Parse(bytes).value().tensors;
  int64_t width = 0;
  for (const auto& tensor : tensors) {
    if (tensor.name == "bert.embeddings.LayerNorm.weight") width = tensor.shape[0];
  }
  ASSERT_GT(width, 0);
  const std::string numbers(width * width * sizeof(float), '\0');
  for (const auto& [name, shape] : std::map<std::string, std::vector<int64_t>>{
           {"bert.pooler.dense.weight", {width, width}}, {"bert.pooler.dense.bias", {width}}}) {
    const size_t size = sizeof(float) * width * (shape.size() == 2 ? width : 1);
    tensors.push_back({name, "F32", shape, std::string_view(numbers).substr(0, size)});
  }
  std::ofstream(folder / "model.safetensors", std::ios::binary)
      << safetensors::Serialize(tensors, {{"format", "pt"}}).value();
  const StoredFolder stored = MustImport(folder), without = MustImport(golden);
  EXPECT_EQ(stored.content.weights_sha256, without.content.weights_sha256);
  EXPECT_EQ(stored.content.parameters, without.content.parameters);
  // A pooler that is another class's own is not passed over.
  std::string config = ReadFile(folder / "config.json").value();
  const std::string from = "BertForTokenClassification", to = "BertForSequenceClassification";
  std::ofstream(folder / "config.json") << config.replace(config.find(from), from.size(), to);
  const StoredFolder pooled = MustImport(folder);
  EXPECT_EQ(pooled.content.parameters, stored.content.parameters + width * (width + 1));
}

TEST_F(FolderModelsTest, PicturesSizesComeFromThePreprocessor) {
  const fs::path folder = Copy("resnet-basic", "resnet");
  std::ofstream(folder / "preprocessor_config.json")
      << R"({"size": {"shortest_edge": 24}, "image_mean": [0.1, 0.2, 0.3], "image_std": 0.5,
             "resample": 3})";
  const StoredFolder stored = MustImport(folder);
  EXPECT_EQ(stored.content.input.height, 24);
  EXPECT_EQ(stored.content.input.fit, "shortest");
  EXPECT_EQ(stored.content.input.edge, 27);  // 24 of 27 pixels are 224 of 256
  EXPECT_EQ(stored.content.input.scale, (std::vector<double>{0.5, 0.5, 0.5}));
  huggingface::Expected expected(folder);
  const std::vector<float> answer = Answer(stored.manifest, expected);
  const std::vector<float> reference = expected.Floats("logits");
  for (size_t i = 0; i < answer.size(); ++i) EXPECT_NEAR(answer[i], reference[i], 1e-4);
  const fs::path out = scratch_.path() / "out";
  ASSERT_TRUE(ExportFolder(*objects_, stored.manifest, out).ok());
  const StoredFolder again = MustImport(out);
  EXPECT_EQ(Answer(again.manifest, expected), answer);
  EXPECT_EQ(again.content.input.fit, "shortest");
  EXPECT_EQ(again.content.input.edge, 27);
  EXPECT_EQ(again.content.input.resample, "bicubic");
  EXPECT_THAT(ReadFile(out / "model.safetensors").value(), HasSubstr("num_batches_tracked"));
}

TEST_F(FolderModelsTest, TextsEndWhereTheFolderSaysSo) {
  const fs::path folder = Copy("llama3-lm", "ends");
  std::ofstream(folder / "generation_config.json") << R"({"eos_token_id": [5, 7]})";
  const auto ends = [&] {
    const auto model = LoadedModel::Load(*objects_, MustImport(folder).manifest).value();
    std::vector<uint32_t> ids;
    for (uint32_t id = 0; id < 30; ++id) {
      if (model->IsEnd(id)) ids.push_back(id);
    }
    return ids;
  };
  EXPECT_THAT(ends(), ElementsAre(5, 7));
  fs::remove(folder / "generation_config.json");
  nlohmann::json config = nlohmann::json::parse(ReadFile(folder / "config.json").value());
  config["eos_token_id"] = 9;
  std::ofstream(folder / "config.json") << config.dump();
  EXPECT_THAT(ends(), ElementsAre(9));
}

TEST_F(FolderModelsTest, WeightsThatAreNotTheConfigsAreNamed) {
  const auto says = [&](const std::string& from, const std::string& to) {
    const fs::path folder = Copy("gpt2-lm", "damaged");
    std::string config = ReadFile(folder / "config.json").value();
    const size_t at = config.find(from);
    EXPECT_NE(at, config.npos) << from;
    std::ofstream(folder / "config.json") << config.replace(at, from.size(), to);
    return std::string(
        ImportFolder(*objects_, huggingface::OpenFilesOf(folder).value()).status().message());
  };
  EXPECT_THAT(says("\"vocab_size\": 30", "\"vocab_size\": 31"),
              HasSubstr("model.safetensors: \"transformer.wte.weight\": is [30, 8]; config.json "
                        "wants [31, 8]"));
  EXPECT_THAT(says("\"n_layer\": 2", "\"n_layer\": 3"),
              HasSubstr("\"transformer.h.2.ln_1.weight\" is missing"));
  EXPECT_THAT(says("\"n_layer\": 2", "\"n_layer\": 1"),
              HasSubstr("is no weight of the GPT2LMHeadModel that config.json describes"));
  EXPECT_THAT(says("\"n_embd\": 8", "\"n_embd\": 9"),
              HasSubstr("model.width: 9 must be a multiple"));
}

constexpr char kTexts[] =
    "text,label\n"
    "a good film,yes\nthe cat sat on the mat,yes\ngood dog,yes\nthe film sat,yes\n"
    "a bad film,no\nthe dog ran,no\nbad cat,no\ndogs ran on a bad mat,no\n";

std::string ManyTexts() {
  std::string csv = "text,label\n";
  const std::string rows = std::string(kTexts).substr(csv.size());
  for (int i = 0; i < 10; ++i) csv += rows;
  return csv;
}

constexpr char kFineTune[] = R"(
kind: train
dataset: {name: texts, text: text, label: label, context: 8}
model: {from: body@1}
optimizer: {name: adamw, lr: 0.01}
batch_size: 16
steps: 30
elastic: {logical_shards: 2}
resources: {max_workers: 2}
)";

class FineTuneTest : public FolderModelsTest {
 protected:
  storage::Digest Body(const std::string& golden) {
    const fs::path folder = Copy(golden, "body");
    std::ofstream(folder / "tokenizer.json") << testing::TinyTokenizerJson();
    const StoredFolder stored = MustImport(folder);
    tokenizer_ = stored.content.input.tokenizer;
    EXPECT_TRUE(storage::IsDigest(tokenizer_));
    return stored.manifest;
  }
  Rank Train(const std::string& yaml, const storage::Digest& body, const std::string& csv,
             int ranks = 1) {
    wire::StartTask start;
    start.set_kind("train");
    start.set_dataset_manifest(Import(csv));
    start.set_model_manifest(body);
    start.set_tokenizer(tokenizer_);
    auto done = RunGang(RunTrain, Spec(yaml), start, ranks);
    EXPECT_TRUE(done[0].status.ok()) << done[0].status.ToString();
    return std::move(done[0]);
  }

  std::string tokenizer_;
};

TEST_F(FineTuneTest, ABodyLearnsANewTaskAndLeavesAsItsFamily) {
  const storage::Digest body = Body("bert-masked");
  const Rank one = Train(kFineTune, body, ManyTexts());
  EXPECT_GT(one.metric("validation/accuracy"), 0.9);
  const storage::ModelManifest model = ModelOf(one);
  EXPECT_TRUE(model.files.contains("tokenizer.json"));
  // The same bits on two ranks.
  EXPECT_EQ(ModelOf(Train(kFineTune, body, ManyTexts(), 2)).weights_sha256, model.weights_sha256);

  const fs::path folder = scratch_.path() / "tuned";
  ASSERT_TRUE(ExportFolder(*objects_, one.task->result.model_manifest(), folder).ok());
  const auto config = huggingface::ParseConfig(ReadFile(folder / "config.json").value()).value();
  EXPECT_EQ(config.architecture, "BertForSequenceClassification");
  EXPECT_EQ(config.labels, model.classes);
  EXPECT_EQ(ReadFile(folder / "tokenizer.json").value(), testing::TinyTokenizerJson());
  EXPECT_EQ(MustImport(folder).content.weights_sha256, model.weights_sha256);
}

// What made an embedding of it is not what the family's classifiers do.
TEST_F(FineTuneTest, ASentenceModelLearnsANewTaskAndLeavesAsItsFamily) {
  const Rank done = Train(kFineTune, Body("bert-sentences"), ManyTexts());
  EXPECT_GT(done.metric("validation/accuracy"), 0.9);
  const fs::path folder = scratch_.path() / "tuned";
  ASSERT_TRUE(ExportFolder(*objects_, done.task->result.model_manifest(), folder).ok());
  const auto config = nlohmann::json::parse(ReadFile(folder / "config.json").value());
  EXPECT_EQ(config["model_type"], "bert");
  EXPECT_FALSE(config.contains("lepton_pool"));
  EXPECT_FALSE(fs::exists(folder / "modules.json"));
  EXPECT_TRUE(MustImport(folder).content.classes.size() == 2);
}

// So does the student alone, whose training is the teacher's here: a head begins anew, and what the
// body has beside is left over.
TEST_F(FineTuneTest, AStudentThatStartsFromABodyIsComparedWithOneThatDoesToo) {
  const storage::Digest body = Body("bert-masked");
  const Rank teacher = Train(kFineTune, body, ManyTexts());
  wire::StartTask start;
  start.set_kind("distill");
  start.set_dataset_manifest(Import(ManyTexts()));
  start.set_model_manifest(body);
  start.set_teacher_manifest(teacher.task->result.model_manifest());
  start.set_tokenizer(tokenizer_);
  spec::JobSpec spec = Spec(kFineTune);
  spec.kind = spec::JobKind::kDistill;
  spec.distill.emplace();
  const auto taught = RunGang(RunDistill, spec, start);
  ASSERT_TRUE(taught[0].status.ok()) << taught[0].status.ToString();
  EXPECT_EQ(taught[0].metric("student_alone/accuracy"), teacher.metric("test/accuracy"));
}

TEST_F(FineTuneTest, ABinaryModelKeepsTheNamesOfBothItsClasses) {
  const std::string yaml = std::string(kFineTune) + "loss: binary_cross_entropy\n";
  const Rank done = Train(yaml, Body("bert-masked"), ManyTexts());
  const fs::path folder = scratch_.path() / "tuned";
  ASSERT_TRUE(ExportFolder(*objects_, done.task->result.model_manifest(), folder).ok());
  const StoredFolder again = MustImport(folder);
  EXPECT_THAT(again.content.classes, ElementsAre("no", "yes"));
  EXPECT_EQ(again.content.loss, "binary_cross_entropy");

  wire::StartTask start;
  start.set_dataset_manifest(Import(ManyTexts()));
  start.set_model_manifest(again.manifest);
  start.set_tokenizer(tokenizer_);
  const auto evaluated = RunGang(
      RunEvaluate,
      Spec("{kind: evaluate, dataset: {name: texts, text: text, label: label}, model: any@1}"),
      start);
  EXPECT_GT(evaluated[0].metric("test/accuracy"), 0.9) << evaluated[0].status.ToString();

  // For other programs it has one label, and folders of others have no more.
  nlohmann::json config = nlohmann::json::parse(ReadFile(folder / "config.json").value());
  EXPECT_EQ(config["id2label"], nlohmann::json({{"0", "yes"}}));
  config.erase("lepton_classes");
  std::ofstream(folder / "config.json") << config.dump();
  EXPECT_THAT(MustImport(folder).content.classes, ElementsAre("not yes", "yes"));
}

TEST_F(FineTuneTest, OneLabelOfNoProblemTypeIsANumber) {
  std::string csv = ManyTexts();
  for (const auto& [name, value] : {std::pair(",yes", ",1.5"), std::pair(",no", ",-0.25")}) {
    for (size_t at = 0; (at = csv.find(name, at)) != csv.npos;) {
      csv.replace(at, std::string(name).size(), value);
    }
  }
  const Rank done = Train(std::string(kFineTune) + "loss: mse\n", Body("bert-masked"), csv);
  const fs::path folder = scratch_.path() / "tuned";
  ASSERT_TRUE(ExportFolder(*objects_, done.task->result.model_manifest(), folder).ok());
  nlohmann::json config = nlohmann::json::parse(ReadFile(folder / "config.json").value());
  config.erase("problem_type");
  std::ofstream(folder / "config.json") << config.dump();
  const StoredFolder again = MustImport(folder);
  EXPECT_EQ(again.content.loss, "mse");
  EXPECT_THAT(again.content.classes, ElementsAre());
  config["problem_type"] = "single_label_classification";
  std::ofstream(folder / "config.json") << config.dump();
  EXPECT_THAT(ImportFolder(*objects_, huggingface::OpenFilesOf(folder).value()).status().message(),
              HasSubstr("needs at least 2 labels"));
}

TEST_F(FineTuneTest, ALanguageModelTrainsOn) {
  constexpr char kContinue[] = R"(
kind: train
dataset: {name: texts, text: text, context: 8}
loss: next_token
model: {from: body@1}
optimizer: {name: adamw, lr: 0.01}
batch_size: 16
steps: 20
)";
  const Rank done = Train(kContinue, Body("llama3-lm"), ManyTexts());
  const auto& progress = done.task->progress;
  ASSERT_FALSE(progress.empty());
  EXPECT_LT(done.metric("validation/loss"), std::log(30));
  const fs::path folder = scratch_.path() / "tuned";
  ASSERT_TRUE(ExportFolder(*objects_, done.task->result.model_manifest(), folder).ok());
  const auto config = huggingface::ParseConfig(ReadFile(folder / "config.json").value()).value();
  EXPECT_EQ(config.architecture, "LlamaForCausalLM");
  EXPECT_EQ(config.model.transformer.rope.scaling, "llama3");
}

TEST_F(FineTuneTest, ModelsOfSpecsLeaveAsFoldersToo) {
  constexpr char kFresh[] = R"(
kind: train
dataset: {name: texts, text: text, label: label, context: 8}
model: {arch: transformer, style: STYLE, layers: 1, heads: 2, width: 16}
optimizer: {name: adamw, lr: 0.01}
batch_size: 16
steps: 3
)";
  const std::string tiny = objects_->Put(testing::TinyTokenizerJson()).value();
  for (const std::string style : {"gpt2", "llama", "distilbert", "bert"}) {
    tokenizer_ = style == "bert" ? "bytes" : tiny;
    std::string yaml = kFresh;
    yaml.replace(yaml.find("STYLE"), 5, style);
    const Rank done = Train(yaml, "", ManyTexts());
    const fs::path folder = scratch_.path() / style;
    const Status exported = ExportFolder(*objects_, done.task->result.model_manifest(), folder);
    ASSERT_TRUE(exported.ok()) << exported.ToString();
    const StoredFolder again = MustImport(folder);
    EXPECT_EQ(again.content.weights_sha256, ModelOf(done).weights_sha256);
    EXPECT_EQ(again.content.classes, ModelOf(done).classes);
    EXPECT_TRUE(fs::exists(folder / "tokenizer.json")) << style;
    EXPECT_EQ(again.content.input.tokenizer, tokenizer_) << style;
  }
}

// What no public model of a family has leaves under a type of ours, and comes back from it.
TEST_F(FineTuneTest, FoldersOfOurOwnTypesComeBack) {
  tokenizer_ = objects_->Put(testing::TinyTokenizerJson()).value();
  std::string pictures = "p0,p1,p2,p3,label\n";
  for (int i = 0; i < 40; ++i) pictures += i % 2 == 0 ? "0,1,2,3,up\n" : "3,2,1,0,down\n";
  const std::string texts = "text: text, label: label, context: 8";
  const std::string transformer = "{arch: transformer, pool: mean, layers: 1, heads: 2, width: 16";
  struct Ours {
    std::string type, data, model, csv;
  };
  std::vector<Ours> all = {
      {"lepton_resnet", "label: label, image: {channels: 1, height: 2, width: 2}",
       "{arch: resnet18, stem: small, depths: [1, 1], widths: [4, 8]}", pictures}};
  for (const std::string style : {"bert", "distilbert", "gpt2", "llama"}) {
    all.push_back({"lepton_" + style, texts, transformer + ", style: " + style + "}", ManyTexts()});
  }
  for (const Ours& ours : all) {
    SCOPED_TRACE(ours.type);
    const Rank done = Train("{kind: train, dataset: {name: data, " + ours.data +
                                "}, model: " + ours.model + ", batch_size: 16, steps: 2}",
                            "", ours.csv);
    const fs::path folder = scratch_.path() / ours.type;
    const Status exported = ExportFolder(*objects_, done.task->result.model_manifest(), folder);
    ASSERT_TRUE(exported.ok()) << exported.ToString();
    const auto config = nlohmann::json::parse(ReadFile(folder / "config.json").value());
    EXPECT_EQ(config["model_type"], ours.type);
    const StoredFolder again = MustImport(folder);
    EXPECT_EQ(again.content.weights_sha256, ModelOf(done).weights_sha256);
    EXPECT_EQ(again.content.classes, ModelOf(done).classes);
    const auto specs = [](const storage::ModelManifest& manifest) {
      return nlohmann::json::parse(manifest.model_spec_json);
    };
    for (const char* key : {"pool", "stem"}) {
      EXPECT_EQ(specs(again.content).value(key, ""), specs(ModelOf(done)).value(key, ""));
    }
  }
}

}  // namespace
}  // namespace lepton::worker
