// What cannot be built says which field is wrong and what it must be.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "tests/runtime/engine/programs.h"
#include "tests/runtime/nn/texts.h"

namespace lepton::nn {
namespace {

using ::testing::HasSubstr;

struct Refusal {
  const char* style;
  std::function<void(spec::ModelSpec&)> change;
  const char* says;
};
void PrintTo(const Refusal& refusal, std::ostream* out) {
  *out << refusal.says;
}

class TransformerRefusal : public testing::TestWithParam<Refusal> {};

TEST_P(TransformerRefusal, NamesTheFieldAndTheFix) {
  spec::ModelSpec model = TinyTransformer(GetParam().style);
  GetParam().change(model);
  const DataShape data = TextShape(100, 50, 3, true);
  auto signature = MakeSignature(model, data);
  Status status = signature.status();
  if (status.ok()) {
    TrainingProgram::Options options;
    options.model = ResolveModel(model, data).value();
    status = TrainingProgram::Build(*signature, options).status();
  }
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr(GetParam().says));
}

INSTANTIATE_TEST_SUITE_P(
    Table, TransformerRefusal,
    testing::Values(
        Refusal{"gpt2", [](auto& m) { m.transformer.style = "t5"; },
                "model.style: 't5' is unknown: must be gpt2"},
        Refusal{"gpt2", [](auto& m) { m.transformer.vocabulary = 99; },
                "model.vocabulary: 99 is less than the data's 100"},
        Refusal{"gpt2", [](auto& m) { m.transformer.context = 49; },
                "model.context: 49 is less than the data's 50"},
        Refusal{"gpt2", [](auto& m) { m.transformer.width = 30; },
                "model.width: 30 must be a multiple of heads, 4"},
        Refusal{"gpt2", [](auto& m) { m.transformer.layers = 0; }, "model.layers: 0"},
        Refusal{"gpt2", [](auto& m) { m.transformer.kv_heads = 2; },
                "model.kv_heads: 2 must be heads, 4, for style gpt2"},
        Refusal{"gpt2", [](auto& m) { m.transformer.head_size = 16; }, "model.head_size: 16"},
        Refusal{"gpt2", [](auto& m) { m.transformer.window = 8; },
                "model.window: is for style mistral, qwen2, qwen3 only, not gpt2"},
        Refusal{"gpt2", [](auto& m) { m.transformer.rope.scaling = "linear"; }, "model.rope"},
        Refusal{"gpt2", [](auto& m) { m.activation = "swish"; }, "model.activation: 'swish'"},
        Refusal{"llama", [](auto& m) { m.transformer.kv_heads = 3; },
                "model.kv_heads: 3 must divide heads, 4"},
        Refusal{"llama", [](auto& m) { m.transformer.head_size = 7; }, "model.head_size: 7"},
        Refusal{"llama", [](auto& m) { m.transformer.pooler = true; },
                "model.pooler: is for style bert only"},
        Refusal{"mistral", [](auto& m) { m.transformer.window_from = 1; }, "model.window_from"},
        Refusal{"llama",
                [](auto& m) {
                  m.transformer.rope.scaling = "llama3";
                  m.transformer.rope.high_freq_factor = 1;
                },
                "model.rope.high_freq_factor"},
        Refusal{"llama",
                [](auto& m) {
                  m.transformer.rope.scaling = "yarn";
                  m.transformer.rope.beta_fast = 0.5;
                },
                "model.rope.beta_fast: must not be less than beta_slow"},
        Refusal{"llama",
                [](auto& m) {
                  m.transformer.rope.scaling = "yarn";
                  m.transformer.rope.base = 1;
                },
                "model.rope.base: must be above 1"},
        Refusal{"llama",
                [](auto& m) {
                  m.transformer.rope.scaling = "yarn";
                  m.transformer.rope.factor = 0.5;
                },
                "model.rope.factor: must be at least 1 for yarn"},
        Refusal{"llama",
                [](auto& m) {
                  m.transformer.rope.scaling = "dynamic";
                  m.transformer.rope.factor = 0.5;
                },
                "model.rope.factor: must be at least 1 for dynamic"},
        Refusal{"llama",
                [](auto& m) {
                  m.transformer.rope.scaling = "longrope";
                  m.transformer.rope.short_factor = {1, 1, 1, 1};
                  m.transformer.rope.long_factor = {1, 1, 1};
                },
                "model.rope.long_factor: has 3 numbers; must have 4, one for each pair of a head"},
        Refusal{"llama", [](auto& m) { m.head = "none"; }, "none gives 32 outputs"},
        Refusal{"llama", [](auto& m) { m.transformer.normalize = true; },
                "model.normalize: is for head none only"},
        Refusal{"gpt2", [](auto& m) { m = spec::DefaultModel("mlp"); },
                "model.arch: mlp takes rows of features, but the data has texts"}));

TEST(ModelRefusal, TokensOutsideTheVocabularyAreNamed) {
  const auto [model, signature] = Resolve(TinyTransformer("bert"), TextShape(100, 8, 2, false));
  TrainingProgram::Options options;
  options.model = model;
  const auto program = MustBuild(signature, options);
  std::vector<float> logits(2);
  const TextBatch bad(signature, {{5, 100}});
  EXPECT_THAT(program->Forward(bad.batch(), logits).message(),
              HasSubstr("tokens: 100 is out of range: must be in 0..99"));
  const TextBatch negative(signature, {{-1, 5}});
  EXPECT_THAT(program->Forward(negative.batch(), logits).message(), HasSubstr("tokens: -1"));
  const TextBatch longer(signature, {std::vector<int32_t>(9, 1)});
  EXPECT_THAT(program->Forward(longer.batch(), logits).message(),
              HasSubstr("the text has 9 tokens; the model has positions for 8"));
}

// What these do depends on how long a text is, beyond what the model is made for.
TEST(ModelRefusal, RotaryPositionsThatChangeWithTheTextEndWithTheContext) {
  for (const char* scaling : {"dynamic", "longrope"}) {
    spec::ModelSpec spec = TinyTransformer("llama");
    spec.transformer.rope.scaling = scaling;
    spec.transformer.rope.short_factor = spec.transformer.rope.long_factor = {1, 1, 1, 1};
    const auto [model, signature] = Resolve(spec, TextShape(100, 8, 0, true));
    const auto program = InferenceProgram::Build(signature, model, "f32").value();
    for (float& weight : program->weights()) weight = 0.1f;
    ASSERT_TRUE(program->Prepare().ok());
    std::vector<float> logits(900);
    const TextBatch longer(signature, {std::vector<int32_t>(9, 1)});
    EXPECT_THAT(program->Forward(longer.batch(), logits).message(),
                HasSubstr("the text has 9 tokens; the model has positions for 8"));
    EXPECT_THAT(program->MakeDecoder({.slots = 1, .context = 9}).status().message(),
                HasSubstr("context at most the model's 8"));
    EXPECT_TRUE(program->MakeDecoder({.slots = 1, .context = 8}).ok());
  }
}

TEST(ModelRefusal, ModelsLargerThanTheMachineAreRefusedBeforeTheyTakeMemory) {
  spec::ModelSpec model = TinyTransformer("gpt2");
  model.transformer.vocabulary = 1 << 30;
  model.transformer.width = 1 << 16;
  const auto [resolved, signature] = Resolve(model, TextShape(100, 8, 2, true));
  TrainingProgram::Options options;
  options.model = resolved;
  const Status status = TrainingProgram::Build(signature, options).status();
  EXPECT_EQ(status.code(), StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("weights, gradients and the optimizer's state need"));
}

TEST(ModelRefusal, DataWithoutSizesNeedsThemInTheSpec) {
  spec::ModelSpec model = TinyTransformer("gpt2");
  EXPECT_THAT(ResolveModel(model, TextShape(0, 8, 2, false)).status().message(),
              HasSubstr("model.vocabulary: missing"));
  EXPECT_THAT(ResolveModel(model, TextShape(8, 0, 2, false)).status().message(),
              HasSubstr("model.context: missing"));
  EXPECT_THAT(ResolveModel(model, {.features = 4, .outputs = 2}).status().message(),
              HasSubstr("transformer takes texts, but the data has rows of features"));
}

}  // namespace
}  // namespace lepton::nn
