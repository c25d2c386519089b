// config.json: what is refused, and by which name; what public files leave out.
#include "runtime/formats/huggingface/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>

#include "runtime/base/file.h"

namespace lepton::huggingface {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

json GoldenConfig(const std::string& name) {
  return json::parse(ReadFile(std::string(LEPTON_GOLDENS "/") + name + "/config.json").value());
}

struct Refusal {
  const char* golden;
  const char* patch;  // what is put over the golden's config
  const char* says;
};
void PrintTo(const Refusal& refusal, std::ostream* out) {
  *out << refusal.says;
}

class ConfigRefusal : public testing::TestWithParam<Refusal> {};

TEST_P(ConfigRefusal, NamesTheOptionAndWhatIsAllowed) {
  json config = GoldenConfig(GetParam().golden);
  ASSERT_TRUE(ParseConfig(config.dump()).ok());
  config.update(json::parse(GetParam().patch));
  const auto parsed = ParseConfig(config.dump());
  ASSERT_FALSE(parsed.ok()) << config.dump(1);
  EXPECT_EQ(parsed.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(parsed.status().message(), HasSubstr(GetParam().says));
}

INSTANTIATE_TEST_SUITE_P(
    Table, ConfigRefusal,
    testing::Values(
        Refusal{"bert-texts", R"({"model_type": "t5"})",
                "config.json: model_type: t5 is not supported: must be one of bert, distilbert"},
        Refusal{"bert-texts", R"({"model_type": 7})", "model_type: missing"},
        Refusal{"bert-texts", R"({"architectures": ["BertForQuestionAnswering"]})",
                "architectures: BertForQuestionAnswering is not supported: must be one of "
                "BertModel, BertForSequenceClassification"},
        Refusal{"bert-texts", R"({"architectures": []})", "architectures: missing"},
        Refusal{"bert-texts", R"({"position_embedding_type": "relative_key"})",
                "position_embedding_type: \"relative_key\" is not supported: must be \"absolute\""},
        Refusal{"bert-texts", R"({"is_decoder": true})", "is_decoder: true is not supported"},
        Refusal{"bert-texts", R"({"add_cross_attention": true})", "add_cross_attention"},
        Refusal{"bert-texts", R"({"hidden_act": "mish"})",
                "hidden_act: mish is not supported: must be one of gelu"},
        Refusal{"bert-texts", R"({"hidden_size": "8"})",
                "hidden_size: \"8\" is not a whole number from 1 to 65536"},
        Refusal{"bert-texts", R"({"hidden_size": 0})", "hidden_size: 0"},
        Refusal{"bert-texts", R"({"hidden_size": 99999999999999999999})", "hidden_size"},
        Refusal{"bert-texts", R"({"layer_norm_eps": -1})", "layer_norm_eps: -1 is not a number"},
        Refusal{"bert-texts", R"({"id2label": {"0": "a", "2": "b"}})",
                "id2label: has no text for class 1"},
        Refusal{"bert-texts", R"({"id2label": 3})", "id2label"},
        Refusal{"bert-texts", R"({"problem_type": "ranking"})",
                "problem_type: ranking is not supported: must be regression"},
        Refusal{"bert-texts", R"({"quantization_config": {"bits": 4}})",
                "quantization_config: is not known, and may change what the model computes"},
        Refusal{"bert-texts", R"({"auto_map": {"AutoModel": "x.Y"}})", "auto_map: is not known"},
        Refusal{"bert-texts", R"({"lepton_pool": "max"})", "lepton_pool: max is not supported"},
        Refusal{"bert-texts", R"({"lepton_classes": ["no", "yes"]})",
                "lepton_classes: must be two names"},
        Refusal{"gpt2-lm", R"({"scale_attn_weights": false})",
                "scale_attn_weights: false is not supported: must be true"},
        Refusal{"gpt2-lm", R"({"scale_attn_by_inverse_layer_idx": true})",
                "scale_attn_by_inverse_layer_idx"},
        Refusal{"gpt2-lm", R"({"tie_word_embeddings": "yes"})", "is not true or false"},
        Refusal{"llama3-lm", R"({"rope_scaling": {"rope_type": "mrope", "factor": 2}})",
                "rope_scaling.rope_type: mrope is not supported: must be default, linear, llama3, "
                "yarn, longrope or dynamic"},
        Refusal{"llama3-lm", R"({"rope_scaling": {"rope_type": "linear"}})",
                "rope_scaling.factor: is missing"},
        Refusal{"llama3-lm", R"({"rope_scaling": {"rope_type": "llama3", "factor": 2}})",
                "rope_scaling.low_freq_factor: is missing"},
        Refusal{"llama3-lm", R"({"rope_scaling": {"type": "yarn"}})",
                "rope_scaling.factor: is missing"},
        Refusal{"llama3-lm", R"({"rope_scaling": {"type": "dynamic", "factor": null}})",
                "rope_scaling.factor: is missing"},
        Refusal{"llama3-lm", R"({"rope_scaling": {"rope_type": "yarn", "factor": 0.5}})",
                "rope_scaling.factor: 0.5 is not a number from 1.0"},
        Refusal{"llama3-lm",
                R"({"rope_scaling": {"rope_type": "yarn", "factor": 2, "beta_fast": 0.5}})",
                "rope_scaling.beta_fast: must not be less than beta_slow"},
        Refusal{"llama3-lm",
                R"({"rope_scaling": {"rope_type": "yarn", "factor": 2, "truncate": 1}})",
                "rope_scaling.truncate: 1 is not true or false"},
        Refusal{"llama3-lm",
                R"({"rope_scaling": {"rope_type": "yarn", "factor": 2, "attention_factor": -1}})",
                "rope_scaling.attention_factor: -1 is not a number"},
        Refusal{"llama3-lm",
                R"({"rope_scaling": {"rope_type": "yarn", "factor": 2}, "rope_theta": 0.5})",
                "rope_scaling.rope_theta: must be above 1 for yarn"},
        Refusal{
            "llama3-lm",
            R"({"rope_scaling": {"rope_type": "yarn", "factor": 2, "llama_4_scaling_beta": 1}})",
            "rope_scaling.llama_4_scaling_beta: is not known"},
        Refusal{"llama3-lm",
                R"({"rope_scaling": {"rope_type": "dynamic", "factor": 2,
                                     "original_max_position_embeddings": 32}})",
                "rope_scaling.original_max_position_embeddings: 32 is not supported: must be "
                "max_position_embeddings, 64"},
        Refusal{"llama3-lm",
                R"({"original_max_position_embeddings": 16,
                    "rope_scaling": {"rope_type": "yarn", "factor": 2,
                                     "original_max_position_embeddings": 32}})",
                "original_max_position_embeddings: 32 is not the 16 that config.json says beside"},
        Refusal{"llama3-lm",
                R"({"rope_scaling": {"rope_type": "linear", "factor": 2},
                    "rope_parameters": {"rope_type": "linear", "factor": 3}})",
                "rope_parameters: is not what rope_scaling says"},
        Refusal{"llama3-lm",
                R"({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}})",
                "rope_parameters.partial_rotary_factor: 0.5 is not supported: must be 1.0"},
        Refusal{
            "mistral-longrope-lm",
            R"({"rope_scaling": {"type": "longrope", "long_factor": [1, 1, 1, 1, 1, 1, 1, 1]}})",
            "rope_scaling.short_factor: is missing"},
        Refusal{"mistral-longrope-lm",
                R"({"rope_scaling": {"type": "longrope", "long_factor": [1, 2, 3],
                                     "short_factor": [1, 1, 1, 1, 1, 1, 1, 1]}})",
                "rope_scaling.long_factor: has 3 items; must be a list of 8 numbers"},
        Refusal{"mistral-longrope-lm",
                R"({"rope_scaling": {"type": "longrope", "long_factor": 4, "short_factor": 4}})",
                "rope_scaling.short_factor: 4; must be a list of 8 numbers"},
        Refusal{"mistral-longrope-lm",
                R"({"rope_scaling": {"type": "longrope", "long_factor": [1, 1, 1, 1, 1, 1, 1, 0],
                                     "short_factor": [1, 1, 1, 1, 1, 1, 1, 1]}})",
                "rope_scaling.long_factor: 0 is not a number from 1e-06"},
        Refusal{"mistral-longrope-lm",
                R"({"rope_scaling": {"type": "longrope", "factor": "4",
                                     "long_factor": [1, 1, 1, 1, 1, 1, 1, 1],
                                     "short_factor": [1, 1, 1, 1, 1, 1, 1, 1]}})",
                "rope_scaling.factor: \"4\" is not a number"},
        Refusal{"mistral-longrope-lm", R"({"original_max_position_embeddings": 1})",
                "rope_scaling.original_max_position_embeddings: must be above 1"},
        Refusal{"llama3-lm", R"({"rope_scaling": {"rope_type": "linear", "factor": 0}})",
                "rope_scaling.factor: 0 is not a number"},
        Refusal{"llama3-lm", R"({"rope_scaling": {"rope_type": "linear", "factor": 2, "beta": 3}})",
                "rope_scaling.beta: is not known"},
        Refusal{"llama3-lm", R"({"rope_scaling": 4})", "rope_scaling: is not an object"},
        Refusal{"llama3-lm", R"({"hidden_size": 9})", "hidden_size: must be a multiple"},
        Refusal{"mistral-lm", R"({"sliding_window": -4})", "sliding_window: -4"},
        Refusal{"qwen3-lm", R"({"layer_types": ["full_attention"]})", "layer_types"},
        Refusal{"qwen3-lm", R"({"layer_types": ["full_attention", "linear_attention"]})",
                "layer_types: \"linear_attention\" is not supported"},
        Refusal{"qwen3-lm", R"({"layer_types": ["full_attention", "sliding_attention"]})",
                "sliding_window: is missing"},
        Refusal{"resnet-basic", R"({"downsample_in_bottleneck": true})",
                "downsample_in_bottleneck"},
        Refusal{"resnet-basic", R"({"layer_type": "preact"})", "layer_type: preact"},
        Refusal{"resnet-basic", R"({"depths": [1]})", "depths: must have as many stages"},
        Refusal{"resnet-basic", R"({"hidden_sizes": [4, -6]})", "hidden_sizes: -6"},
        Refusal{"vit-images", R"({"image_size": [8, 8, 8]})", "image_size"},
        Refusal{"vit-images", R"({"pooler_output_size": 4})", "pooler_output_size"}));

TEST(HuggingFaceConfig, RefusesWhatIsNoConfig) {
  for (const std::string text : {"", "[]", "{", "null", "{\"model_type\": \"bert\"}"}) {
    EXPECT_FALSE(ParseConfig(text).ok()) << text;
  }
  EXPECT_THAT(ParseConfig(std::string(2 << 20, ' ')).status().message(), HasSubstr("1 MiB"));
  const std::string deep = "{\"a\":" + std::string(100'000, '[') + std::string(100'000, ']') + "}";
  EXPECT_FALSE(ParseConfig(deep).ok());
}

// ImageNet's labels have two cranes.
TEST(HuggingFaceConfig, RepeatedLabelsGetTheirNumber) {
  json config = GoldenConfig("bert-texts");
  config["id2label"] = {{"0", "crane"}, {"1", "crane"}, {"2", "crane (1)"}};
  EXPECT_THAT(ParseConfig(config.dump())->labels,
              testing::ElementsAre("crane", "crane (1)'", "crane (1)"));
}

TEST(HuggingFaceConfig, PassesOverWhatIsOff) {
  json config = GoldenConfig("llama3-lm");
  config["some_new_option"] = nullptr;
  config["another_new_option"] = false;
  config["torch_dtype"] = "float16";
  EXPECT_TRUE(ParseConfig(config.dump()).ok());
}

TEST(HuggingFaceConfig, OfKeysWithoutANumberThereAreAsManyAsHeads) {
  for (const char* golden : {"mistral-lm", "qwen2-lm", "qwen3-lm"}) {
    json config = GoldenConfig(golden);
    config["num_key_value_heads"] = nullptr;
    const auto parsed = ParseConfig(config.dump());
    ASSERT_TRUE(parsed.ok()) << golden << ": " << parsed.status().ToString();
    EXPECT_EQ(parsed->model.transformer.kv_heads, parsed->model.transformer.heads) << golden;
  }
  json llama = GoldenConfig("llama3-lm");
  llama["is_llama_config"] = true;
  EXPECT_TRUE(ParseConfig(llama.dump()).ok());
}

// What the families' own code fills in for options that are not there.
TEST(HuggingFaceConfig, MissingOptionsAreTheFamilysDefaults) {
  const auto model = [](const char* text) { return ParseConfig(text).value().model; };
  const auto gpt2 = model(R"({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]})");
  EXPECT_EQ(gpt2.transformer.vocabulary, 50257);
  EXPECT_EQ(gpt2.transformer.mlp_width, 3072);
  EXPECT_TRUE(gpt2.transformer.tied);
  EXPECT_EQ(gpt2.activation, "gelu_tanh");
  const auto llama = model(
      R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"],
          "num_attention_heads": 16, "rms_norm_eps": 1e-5})");
  EXPECT_EQ(llama.transformer.kv_heads, 16);
  EXPECT_FALSE(llama.transformer.tied);
  EXPECT_EQ(llama.transformer.rope.base, 10000);
  const auto qwen = model(
      R"({"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "sliding_window": 99,
          "use_sliding_window": false})");
  EXPECT_EQ(qwen.transformer.window, 0);
  const auto classes = ParseConfig(
      R"({"model_type": "distilbert", "architectures": ["DistilBertForSequenceClassification"]})");
  EXPECT_THAT(classes->labels, testing::ElementsAre("LABEL_0", "LABEL_1"));
}

// null says that there is no window; an option that is left out says nothing.
TEST(HuggingFaceConfig, AWindowIsTheFamilysUnlessItIsNull) {
  const auto window = [](const json& options) {
    json config = options;
    config["architectures"] = {options["model_type"] == "mistral" ? "MistralForCausalLM"
                                                                  : "Qwen2ForCausalLM"};
    return ParseConfig(config.dump()).value().model.transformer.window;
  };
  EXPECT_EQ(window({{"model_type", "mistral"}}), 4096);
  EXPECT_EQ(window({{"model_type", "mistral"}, {"sliding_window", nullptr}}), 0);
  EXPECT_EQ(window({{"model_type", "mistral"}, {"sliding_window", 7}}), 7);
  const json qwen = {{"model_type", "qwen2"}, {"use_sliding_window", true}};
  EXPECT_EQ(window(qwen), 4096);
  json none = qwen;
  none["sliding_window"] = nullptr;
  EXPECT_EQ(window(none), 0);
}

TEST(HuggingFaceConfig, NewerFormsOfRopeAndWindowsAreRead) {
  json config = GoldenConfig("qwen3-lm");
  config.erase("rope_theta");
  config["rope_parameters"] = {{"rope_type", "linear"}, {"rope_theta", 5e5}, {"factor", 3}};
  config["use_sliding_window"] = true;
  config["sliding_window"] = 4;
  config["max_window_layers"] = 1;
  config["layer_types"] = {"full_attention", "sliding_attention"};
  const auto parsed = ParseConfig(config.dump());
  ASSERT_TRUE(parsed.ok()) << parsed.status().ToString();
  const spec::TransformerSpec& t = parsed->model.transformer;
  EXPECT_EQ(t.rope.base, 5e5);
  EXPECT_EQ(t.rope.scaling, "linear");
  EXPECT_EQ(t.rope.factor, 3);
  EXPECT_EQ(t.window, 4);
  EXPECT_EQ(t.window_from, 1);
}

// What is left out follows from the rest as in public code.
TEST(HuggingFaceConfig, RotaryOptionsThatAreLeftOutFollowFromTheRest) {
  const auto rope = [](const char* golden, const json& options) {
    json config = GoldenConfig(golden);
    config.update(options);
    const auto parsed = ParseConfig(config.dump());
    EXPECT_TRUE(parsed.ok()) << parsed.status().ToString();
    return parsed.ok() ? parsed->model.transformer.rope : spec::RopeSpec();
  };
  json yarn = {{"rope_type", "yarn"}, {"factor", 4}, {"finetuned", true}};
  spec::RopeSpec read = rope("llama3-lm", {{"rope_scaling", yarn}});
  EXPECT_EQ(read.original_context, 64) << "max_position_embeddings";
  EXPECT_EQ(read.beta_fast, 32);
  EXPECT_EQ(read.beta_slow, 1);
  EXPECT_TRUE(read.truncate);
  EXPECT_DOUBLE_EQ(read.attention_factor, 0.1 * std::log(4) + 1);
  EXPECT_EQ(rope("llama3-lm", {{"rope_scaling", yarn}, {"rope_parameters", yarn}}), read);
  EXPECT_EQ(rope("llama3-lm", {{"rope_scaling", yarn}, {"original_max_position_embeddings", 16}})
                .original_context,
            16);
  // The two scales count only together, and not beside the factor itself.
  yarn["mscale"] = 2;
  EXPECT_EQ(rope("llama3-lm", {{"rope_scaling", yarn}}), read);
  yarn["mscale_all_dim"] = 0.5;
  EXPECT_DOUBLE_EQ(rope("llama3-lm", {{"rope_scaling", yarn}}).attention_factor,
                   (0.2 * std::log(4) + 1) / (0.05 * std::log(4) + 1));
  yarn["attention_factor"] = 1.5;
  EXPECT_EQ(rope("llama3-lm", {{"rope_scaling", yarn}}).attention_factor, 1.5);
  read = rope("mistral-longrope-lm", json::object());
  EXPECT_EQ(read.original_context, 8);
  EXPECT_EQ(read.factor, 8) << "of max_position_embeddings, 64";
  EXPECT_DOUBLE_EQ(read.attention_factor, std::sqrt(2));
}

// Versions of public code disagree on what follows from what: all is written.
TEST(HuggingFaceConfig, RotaryOptionsAreWrittenOut) {
  spec::ModelSpec model = spec::DefaultModel("transformer", "llama");
  model.transformer.vocabulary = 100;
  model.transformer.context = 64;
  model.transformer.layers = model.transformer.heads = model.transformer.kv_heads = 1;
  model.transformer.width = model.transformer.head_size = 4;
  model.transformer.mlp_width = 8;
  spec::RopeSpec& rope = model.transformer.rope;
  rope.scaling = "longrope";
  rope.factor = 4;
  rope.original_context = 16;
  rope.short_factor = {1, 1.5};
  rope.long_factor = {1, 3};
  const auto written = [&](std::string_view original) {
    return json::parse(WriteConfig(model, Config::Task::kLanguageModel, {}, "", original).value());
  };
  json config = written("");
  EXPECT_EQ(config["original_max_position_embeddings"], 16);
  EXPECT_EQ(config["rope_scaling"], json({{"rope_type", "longrope"},
                                          {"factor", 4.0},
                                          {"original_max_position_embeddings", 16},
                                          {"attention_factor", std::sqrt(1.5)},
                                          {"short_factor", {1.0, 1.5}},
                                          {"long_factor", {1.0, 3.0}}}));
  rope = {};
  rope.scaling = "yarn";
  rope.factor = 2;
  rope.original_context = 32;
  // What was said of the model before goes.
  config = written(R"({"original_max_position_embeddings": 8, "rope_parameters": {}})");
  EXPECT_FALSE(config.contains("original_max_position_embeddings"));
  EXPECT_FALSE(config.contains("rope_parameters"));
  EXPECT_EQ(config["rope_scaling"], json({{"rope_type", "yarn"},
                                          {"factor", 2.0},
                                          {"original_max_position_embeddings", 32},
                                          {"attention_factor", 0.1 * std::log(2) + 1},
                                          {"beta_fast", 32.0},
                                          {"beta_slow", 1.0}}));
}

TEST(HuggingFaceConfig, ModelsOfSpecsAreWrittenAsTheirFamily) {
  for (const char* style : spec::kTransformerStyles) {
    spec::ModelSpec model = spec::DefaultModel("transformer", style);
    model.transformer.vocabulary = 100;
    model.transformer.context = 32;
    const bool encoder = model.transformer.pool == "first";
    const auto task = encoder ? Config::Task::kTextClassification : Config::Task::kLanguageModel;
    const auto written = WriteConfig(model, task, {"a", "b"}, "");
    ASSERT_TRUE(written.ok()) << written.status().ToString();
    const json config = json::parse(*written);
    EXPECT_EQ(config["model_type"], style);
    EXPECT_EQ(config["architectures"].size(), 1u);
    EXPECT_FALSE(config.contains("lepton_pool"));
  }
  spec::ModelSpec pooled = spec::DefaultModel("transformer", "bert");
  pooled.transformer.pool = "mean";
  const auto written = WriteConfig(pooled, Config::Task::kTextClassification, {"a", "b"}, "");
  EXPECT_EQ(json::parse(*written)["lepton_pool"], "mean");
  EXPECT_EQ(json::parse(*written)["model_type"], "lepton_bert")
      << "another program would answer from the first token";
  spec::ModelSpec small = spec::DefaultModel("resnet18");
  small.resnet.stem = "small";
  small.image.channels = 1;
  const auto resnet = WriteConfig(small, Config::Task::kImageClassification, {"a", "b"}, "");
  EXPECT_EQ(json::parse(*resnet)["model_type"], "lepton_resnet");
  EXPECT_EQ(ParseConfig(*resnet).value().model.resnet.stem, "small");
  EXPECT_EQ(WriteConfig(spec::DefaultModel("mlp"), Config::Task::kBase, {}, "").status().code(),
            StatusCode::kFailedPrecondition);
}

// What no public model has comes back as it was, under a type that other programs do not know.
TEST(HuggingFaceConfig, PartsThatPublicModelsLackComeBack) {
  spec::ModelSpec bert = spec::DefaultModel("transformer", "bert");
  bert.transformer.vocabulary = 100;
  bert.transformer.context = 32;
  bert.transformer.layers = bert.transformer.heads = 2;
  bert.transformer.kv_heads = 2;
  bert.transformer.width = 8;
  bert.transformer.mlp_width = 16;
  const auto again = [](const spec::ModelSpec& model, Config::Task task, const char* type) {
    const auto written = WriteConfig(model, task, {"a", "b"}, "");
    EXPECT_TRUE(written.ok()) << written.status().ToString();
    EXPECT_EQ(json::parse(*written)["model_type"], type);
    const auto read = ParseConfig(*written);
    EXPECT_TRUE(read.ok()) << read.status().ToString();
    return read.ok() ? read->model.transformer : spec::TransformerSpec();
  };
  using Task = Config::Task;
  EXPECT_TRUE(again(bert, Task::kTextClassification, "bert").pooler);
  spec::ModelSpec plain = bert;
  plain.transformer.pooler = false;
  EXPECT_FALSE(again(plain, Task::kTextClassification, "lepton_bert").pooler);
  EXPECT_EQ(again(plain, Task::kTokenClassification, "bert").width, 8) << "it has none anyway";
  spec::ModelSpec mean = bert;
  mean.transformer.pool = "mean";
  EXPECT_EQ(again(mean, Task::kTextClassification, "lepton_bert").pool, "mean");
  spec::ModelSpec alike = bert;
  alike.transformer.token_types = 0;
  EXPECT_EQ(again(alike, Task::kTextClassification, "lepton_bert").token_types, 0);
  spec::ModelSpec distilbert = spec::DefaultModel("transformer", "distilbert");
  distilbert.transformer.vocabulary = 100;
  distilbert.transformer.context = 32;
  distilbert.transformer.layers = distilbert.transformer.heads = 2;
  distilbert.transformer.width = 8;
  distilbert.transformer.mlp_width = 16;
  EXPECT_EQ(again(distilbert, Task::kTextClassification, "distilbert").norm_epsilon, 1e-12);
  distilbert.transformer.norm_epsilon = 1e-5;
  EXPECT_EQ(again(distilbert, Task::kTextClassification, "lepton_distilbert").norm_epsilon, 1e-5);
  spec::ModelSpec gpt2 = spec::DefaultModel("transformer", "gpt2");
  gpt2.transformer.vocabulary = 100;
  gpt2.transformer.context = 32;
  gpt2.transformer.mlp_width = 16;
  gpt2.transformer.pool = "mean";
  EXPECT_EQ(again(gpt2, Task::kTextClassification, "lepton_gpt2").pool, "mean");
}

// Public code takes the last token before the padding; token 0 is a word.
TEST(HuggingFaceConfig, LastTokensArePaddedWithTheEndOfATextAndWithNothingElse) {
  spec::ModelSpec model = spec::DefaultModel("transformer", "gpt2");
  model.transformer.vocabulary = 100;
  model.transformer.context = 32;
  const auto padding = [&](std::string_view original) {
    const auto written =
        WriteConfig(model, Config::Task::kTextClassification, {"a", "b"}, "", original);
    EXPECT_TRUE(written.ok()) << written.status().ToString();
    const json config = json::parse(*written);
    return config.contains("pad_token_id") ? config["pad_token_id"] : json("none");
  };
  EXPECT_EQ(padding(R"({"eos_token_id": 99})"), 99);
  EXPECT_EQ(padding(R"({"eos_token_id": [98, 99], "pad_token_id": null})"), 98);
  EXPECT_EQ(padding(R"({"eos_token_id": 99, "pad_token_id": 5})"), 5);
  EXPECT_EQ(padding(""), "none");
}

}  // namespace
}  // namespace lepton::huggingface
