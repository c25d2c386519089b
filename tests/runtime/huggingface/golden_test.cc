// Each family against what plain PyTorch answers with the same weights (tests/golden/huggingface).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/runtime/huggingface/loaded_folder.h"

namespace lepton::huggingface {
namespace {

void ExpectClose(std::span<const float> got, std::span<const float> wanted,
                 const std::string& what) {
  ASSERT_EQ(got.size(), wanted.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(got[i], wanted[i], 1e-4) << what << ", element " << i;
  }
}

struct Case {
  const char* folder;
  Config::Task task;
  bool copies;  // weights that are not f32
};
void PrintTo(const Case& c, std::ostream* out) {
  *out << c.folder;
}

class HuggingFaceModel : public testing::TestWithParam<Case> {};

TEST_P(HuggingFaceModel, AnswersLikeTheReference) {
  LoadedFolder loaded(Golden(GetParam().folder));
  const Config& config = loaded.folder.config;
  EXPECT_EQ(config.task, GetParam().task);
  Expected expected(Golden(GetParam().folder));
  int compared = 0;
  for (const std::string answer : {"logits", "hidden", "pooled"}) {
    if (!expected.Has(answer)) continue;
    ++compared;
    const nn::DataShape data = expected.shape(answer);
    spec::ModelSpec model = nn::ResolveModel(config.model, data).value();
    // Hidden states do not go through the pooler.
    nn::SourceTensors tensors = loaded.tensors;
    if (answer == "hidden") {
      std::erase_if(tensors, [](const auto& t) { return t.first.find("pooler") != t.first.npos; });
    }
    const nn::Signature signature = nn::MakeSignature(config.model, data).value();
    const auto program = nn::InferenceProgram::Build(signature, model, "f32").value();
    const auto weights = nn::StoredWeights::Make(tensors, program->parameters());
    ASSERT_TRUE(weights.ok()) << weights.status().ToString();
    ASSERT_TRUE(program->Bind(*weights).ok());
    ASSERT_TRUE(program->Prepare().ok());
    const nn::Batch batch = expected.batch(signature);
    const std::vector<float> wanted = expected.Floats(answer);
    std::vector<float> got(wanted.size());
    const Status run = program->Forward(batch, got);
    ASSERT_TRUE(run.ok()) << run.ToString();
    EXPECT_EQ((*weights)->copies_made() > 0, GetParam().copies);
    // Padded tokens have no answer that anyone reads.
    if (expected.Has("mask") && data.per_token) {
      for (size_t i = 0; i < got.size(); ++i) {
        if (expected.mask[i / static_cast<size_t>(data.outputs)] < 0) got[i] = wanted[i];
      }
    }
    ExpectClose(got, wanted, answer);
  }
  EXPECT_GT(compared, 0);
}

TEST_P(HuggingFaceModel, ConfigComesBackTheSame) {
  const Config config = LoadedFolder(Golden(GetParam().folder)).folder.config;
  for (const bool keep : {false, true}) {
    const std::string original =
        keep ? ReadFile(Golden(GetParam().folder) / "config.json").value() : "";
    const auto written =
        WriteConfig(config.model, config.task, config.labels, config.problem_type, original);
    ASSERT_TRUE(written.ok()) << written.status().ToString();
    const auto again = ParseConfig(*written);
    ASSERT_TRUE(again.ok()) << again.status().ToString();
    EXPECT_EQ(again->model_type, config.model_type);
    EXPECT_EQ(again->task, config.task);
    EXPECT_EQ(again->labels, config.labels);
    spec::ModelSpec model = again->model;
    model.transformer.pooler = config.model.transformer.pooler;  // is not in the config
    EXPECT_EQ(spec::ModelSpecToJson(model), spec::ModelSpecToJson(config.model));
    if (keep) {
      const auto before = nlohmann::json::parse(original), after = nlohmann::json::parse(*written);
      EXPECT_EQ(before.value("bos_token_id", -1), after.value("bos_token_id", -1));
    }
  }
}

using Task = Config::Task;
INSTANTIATE_TEST_SUITE_P(
    Goldens, HuggingFaceModel,
    testing::Values(Case{"bert-texts", Task::kTextClassification, false},
                    Case{"bert-tokens", Task::kTokenClassification, false},
                    Case{"bert-base", Task::kBase, false}, Case{"bert-masked", Task::kBase, false},
                    Case{"bert-sentences", Task::kBase, false},
                    Case{"qwen3-sentences", Task::kBase, false},
                    Case{"distilbert-texts", Task::kTextClassification, false},
                    Case{"gpt2-lm", Task::kLanguageModel, false},
                    Case{"gpt2-texts", Task::kTextClassification, false},
                    Case{"llama3-lm", Task::kLanguageModel, true},
                    Case{"llama-biases-lm", Task::kLanguageModel, true},
                    Case{"llama-texts", Task::kTextClassification, false},
                    Case{"mistral-lm", Task::kLanguageModel, false},
                    Case{"qwen2-lm", Task::kLanguageModel, false},
                    Case{"qwen3-lm", Task::kLanguageModel, false},
                    Case{"llama-yarn-lm", Task::kLanguageModel, false},
                    Case{"qwen3-yarn-lm", Task::kLanguageModel, false},
                    Case{"mistral-longrope-lm", Task::kLanguageModel, false},
                    Case{"mistral-longrope-short-lm", Task::kLanguageModel, false},
                    Case{"qwen2-dynamic-lm", Task::kLanguageModel, false},
                    Case{"resnet-basic", Task::kImageClassification, false},
                    Case{"resnet-bottleneck", Task::kImageClassification, false},
                    Case{"vit-images", Task::kImageClassification, false},
                    Case{"vit-base", Task::kBase, false}),
    [](const auto& info) {
      std::string name = info.param.folder;
      std::replace(name.begin(), name.end(), '-', '_');
      return name;
    });

// Padding that public code would put in front or behind: the answer is the text's.
TEST(HuggingFaceModels, LabelsComeInTheOrderOfTheirIndices) {
  const Config config = LoadedFolder(Golden("bert-texts")).folder.config;
  EXPECT_THAT(config.labels, testing::ElementsAre("low", "middle", "high"));
}

TEST(HuggingFaceModels, ABodyWithoutAPoolerSaysSo) {
  EXPECT_TRUE(LoadedFolder(Golden("bert-base")).folder.config.model.transformer.pooler);
  EXPECT_FALSE(LoadedFolder(Golden("bert-masked")).folder.config.model.transformer.pooler);
}

TEST(HuggingFaceModels, ABodyTakesAFreshHead) {
  LoadedFolder loaded(Golden("bert-masked"));
  spec::ModelSpec model = loaded.folder.config.model;
  model.head = "auto";
  model.transformer.pooler = true;
  const nn::DataShape data{.kind = nn::DataShape::Kind::kTokens, .context = 9, .outputs = 5};
  nn::TrainingProgram::Options options;
  options.model = nn::ResolveModel(model, data).value();
  const auto program =
      nn::TrainingProgram::Build(nn::MakeSignature(model, data).value(), options).value();
  const auto copied =
      nn::CopyWithFreshHead(loaded.tensors, program->parameters(), program->weights());
  ASSERT_TRUE(copied.ok()) << copied.status().ToString();
  EXPECT_THAT(copied->fresh,
              testing::ElementsAre("bert.pooler.dense.weight", "bert.pooler.dense.bias",
                                   "classifier.weight", "classifier.bias"));
  const auto* words = loaded.tensors.at("bert.embeddings.word_embeddings.weight").data;
  EXPECT_EQ(std::memcmp(program->weights().data(), words, 30 * 8 * sizeof(float)), 0);
  // The body must be whole.
  loaded.tensors.erase("bert.embeddings.word_embeddings.weight");
  EXPECT_THAT(nn::CopyWithFreshHead(loaded.tensors, program->parameters(), program->weights())
                  .status()
                  .message(),
              testing::HasSubstr("bert.embeddings.word_embeddings.weight: the stored model does"));
}

}  // namespace
}  // namespace lepton::huggingface
