// Architectures in specs: defaults by style, round trips, fields of another architecture.
#include "runtime/spec/model_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "runtime/spec/job_spec.h"

namespace lepton::spec {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

Result<ModelSpec> Parse(const char* text) {
  return ModelSpecFromJson(json::parse(text));
}

TEST(ModelSpec, EveryArchitectureSurvivesTheRoundTrip) {
  std::vector<ModelSpec> models;
  for (const char* arch : {"mlp", "resnet18", "resnet34", "resnet50", "vit"}) {
    models.push_back(DefaultModel(arch));
  }
  for (const char* style : kTransformerStyles) models.push_back(DefaultModel("transformer", style));
  RopeSpec& rope = models.emplace_back(DefaultModel("transformer", "llama")).transformer.rope;
  rope.scaling = "longrope";
  rope.short_factor = {1, 1.25};
  rope.long_factor = {1, 0.1};
  for (const ModelSpec& model : models) {
    const json written = ModelSpecToJson(model);
    const auto again = ModelSpecFromJson(written);
    ASSERT_TRUE(again.ok()) << again.status().ToString();
    EXPECT_EQ(ModelSpecToJson(*again), written);
    EXPECT_EQ(again->transformer.rope, model.transformer.rope);
  }
}

TEST(ModelSpec, DefaultsAreThoseOfTheStyle) {
  const ModelSpec llama = *Parse(R"({"arch": "transformer", "style": "llama", "width": 64})");
  EXPECT_EQ(llama.activation, "silu");
  EXPECT_FALSE(llama.transformer.tied);
  EXPECT_EQ(llama.transformer.width, 64);
  const ModelSpec gpt2 = *Parse(R"({"arch": "transformer"})");
  EXPECT_EQ(gpt2.activation, "gelu_tanh");
  EXPECT_TRUE(gpt2.transformer.tied);
  const ModelSpec resnet = *Parse(R"({"arch": "resnet50"})");
  EXPECT_EQ(resnet.resnet.block, "bottleneck");
  EXPECT_EQ(resnet.resnet.depths, (std::vector<int64_t>{3, 4, 6, 3}));
  const ModelSpec bert =
      *Parse(R"({"arch": "transformer", "style": "bert", "activation": "relu"})");
  EXPECT_EQ(bert.activation, "relu");
  EXPECT_EQ(bert.transformer.pool, "first");
  EXPECT_EQ(bert.transformer.token_types, 2);
}

TEST(ModelSpec, AJobHasThemToo) {
  const auto job = ParseJobSpec(
      "{kind: train, dataset: d, model: {arch: transformer, style: qwen3, layers: 2}, "
      "optimizer: {decay: matrices}}");
  ASSERT_TRUE(job.ok()) << job.status().ToString();
  EXPECT_EQ(job->model.transformer.norm_epsilon, 1e-6);
  EXPECT_EQ(job->optimizer.decay, "matrices");
  const auto trial = ApplyTrial(*job, {{"model.layers", "3"}, {"model.rope.base", "5000"}});
  ASSERT_TRUE(trial.ok()) << trial.status().ToString();
  EXPECT_EQ(trial->model.transformer.layers, 3);
  EXPECT_EQ(trial->model.transformer.rope.base, 5000);
}

TEST(ModelSpec, AFolderSaysTheArchitectureAlone) {
  const auto job = [](const std::string& model) {
    const auto parsed =
        ParseJobSpec("{kind: train, dataset: {name: d, text: t, label: l}, model: " + model + "}");
    return parsed.ok() ? std::string() : parsed.status().message();
  };
  EXPECT_EQ(job("{hf: /models/bert}"), "");
  EXPECT_EQ(job("{hf: /models/bert, dropout: 0.2}"), "");
  EXPECT_THAT(job("{hf: /models/bert, hidden: [3]}"),
              HasSubstr("model.hf: the folder says the architecture: only dropout may be given"));
  EXPECT_THAT(job("{hf: /models/bert, arch: transformer}"), HasSubstr("model.hf: the folder says"));
  EXPECT_THAT(job("{hf: /models/bert, from: x@1}"),
              HasSubstr("model.hf: give one of from, onnx and hf, not several"));
  const auto evaluate =
      ParseJobSpec("{kind: evaluate, dataset: {name: d, text: t, label: l}, model: {hf: /m}}");
  EXPECT_TRUE(evaluate.ok()) << evaluate.status().ToString();
}

struct ModelRefusal {
  const char* text;
  const char* says;
};
void PrintTo(const ModelRefusal& refusal, std::ostream* out) {
  *out << refusal.text;
}

class ModelSpecRefusal : public ::testing::TestWithParam<ModelRefusal> {};

TEST_P(ModelSpecRefusal, NamesTheFieldAndTheFix) {
  const auto model = Parse(GetParam().text);
  ASSERT_FALSE(model.ok());
  EXPECT_EQ(model.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(model.status().message(), HasSubstr(GetParam().says));
}

INSTANTIATE_TEST_SUITE_P(
    Table, ModelSpecRefusal,
    ::testing::Values(
        ModelRefusal{R"({"arch": "lstm"})", "arch: \"lstm\" is not one of mlp, resnet18"},
        ModelRefusal{R"({"arch": "transformer", "style": "t5"})",
                     "style: \"t5\" is not one of gpt2"},
        ModelRefusal{R"({"arch": "transformer", "hidden": [3]})",
                     "hidden: belongs to arch mlp, but arch is transformer"},
        ModelRefusal{R"({"layers": 3})", "layers: belongs to arch"},
        ModelRefusal{R"({"arch": "vit", "kv_heads": 3})",
                     "kv_heads: belongs to arch transformer, but arch is vit"},
        ModelRefusal{R"({"arch": "resnet18", "patch": 3})", "patch: belongs to arch vit"},
        ModelRefusal{R"({"arch": "transformer", "image": {}})", "image: belongs to arch resnet18"},
        ModelRefusal{R"({"arch": "transformer", "heads": 0})", "heads: 0 is out of range"},
        ModelRefusal{R"({"arch": "transformer", "rope": {"scaling": "mrope"}})",
                     "rope.scaling: \"mrope\" is not one of none, linear, llama3, yarn"},
        ModelRefusal{R"({"arch": "transformer", "rope": {"long_factor": [1, 0]}})",
                     "rope.long_factor.1: 0 is out of range"},
        ModelRefusal{R"({"arch": "transformer", "pool": "max"})",
                     "pool: \"max\" is not one of first"},
        ModelRefusal{R"({"arch": "transformer", "widht": 3})",
                     "unknown field; did you mean 'width'?"},
        ModelRefusal{R"({"arch": "resnet18", "depths": [2, 0]})", "depths.1: 0 is out of range"}));

}  // namespace
}  // namespace lepton::spec
