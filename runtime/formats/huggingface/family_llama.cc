// Llama and the families that share its form: Mistral, Qwen2 (also 2.5) and Qwen3.
#include "runtime/formats/huggingface/family.h"
#include "runtime/formats/huggingface/rope_options.h"

namespace lepton::huggingface {
namespace {

using nlohmann::json;
using spec::ModelSpec;
using Task = Config::Task;

// Where each layer's kind of attention is listed: full ones, then those with the window.
void ReadLayerTypes(ConfigFields& fields, spec::TransformerSpec& t) {
  const json* types = fields.Take("layer_types");
  if (types == nullptr) return;
  const bool list = types->is_array() && types->size() == static_cast<size_t>(t.layers);
  if (!list) return fields.Fail("layer_types", "is not a list with one text for each layer");
  int64_t full = 0;
  bool sliding = false;
  for (const json& type : *types) {
    if (type != "full_attention" && type != "sliding_attention") {
      return fields.Fail("layer_types", type.dump() +
                                            " is not supported: must be full_attention or "
                                            "sliding_attention");
    }
    if (type == "sliding_attention") {
      sliding = true;
      continue;
    }
    if (sliding) {
      return fields.Fail("layer_types",
                         "layers with full attention after some with a window are not supported");
    }
    ++full;
  }
  if (!sliding) t.window = 0;
  if (sliding && t.window == 0) return fields.Fail("sliding_window", "is missing");
  t.window_from = sliding ? full : 0;
}

void ReadWindow(ConfigFields& fields, spec::TransformerSpec& t) {
  if (t.style == "llama") return;
  const bool qwen = t.style != "mistral";
  bool used = !qwen;
  if (qwen) fields.Bool("use_sliding_window", used);
  int64_t window = fields.IsNull("sliding_window") ? 0 : 4096;
  fields.Integer("sliding_window", window, 1, 1 << 30);
  int64_t from = qwen ? 28 : 0;
  if (qwen) fields.Integer("max_window_layers", from, 0, 1 << 20);
  t.window = used && from < t.layers ? window : 0;
  t.window_from = t.window > 0 ? from : 0;
  if (qwen) ReadLayerTypes(fields, t);
}

void ReadLlama(ConfigFields& fields, ModelSpec& model) {
  spec::TransformerSpec& t = model.transformer;
  fields.Integer("vocab_size", t.vocabulary, 1, 1 << 30);
  fields.Integer("hidden_size", t.width, 1, 65536);
  fields.Integer("num_hidden_layers", t.layers, 1, 1024);
  fields.Integer("num_attention_heads", t.heads, 1, 4096);
  if (t.style == "llama") t.kv_heads = 0;  // as many as heads
  if (fields.IsNull("num_key_value_heads")) t.kv_heads = 0;
  fields.Integer("num_key_value_heads", t.kv_heads, 1, 4096);
  fields.Integer("head_dim", t.head_size, 1, 65536);
  fields.Integer("intermediate_size", t.mlp_width, 1, 1 << 20);
  fields.Integer("max_position_embeddings", t.context, 1, 1 << 30);
  fields.Number("rms_norm_eps", t.norm_epsilon, 1e-20, 1);
  fields.Activation("hidden_act", model.activation);
  fields.Bool("tie_word_embeddings", t.tied);
  if (t.style == "llama" || t.style == "qwen3") fields.Bool("attention_bias", t.attention_bias);
  if (t.style == "llama") fields.Bool("mlp_bias", t.mlp_bias);
  if (t.style == "llama") fields.PassOver({"is_llama_config"});  // of what nanotron writes
  ReadWindow(fields, t);
  if (t.kv_heads == 0) t.kv_heads = t.heads;
  if (t.head_size == 0 && t.width % t.heads != 0) {
    fields.Fail("hidden_size", "must be a multiple of num_attention_heads without head_dim");
  }
  if (t.head_size == 0) t.head_size = t.width / t.heads;
  ReadRopeOptions(fields, t);
}

template <const char* const& style>
ModelSpec LlamaDefaults() {
  ModelSpec model = spec::DefaultModel("transformer", style);
  spec::TransformerSpec& t = model.transformer;
  const std::string name = style;
  t.width = 4096;
  t.layers = t.heads = t.kv_heads = 32;
  t.norm_epsilon = 1e-6;
  t.rope.base = 10000;
  if (name == "llama" || name == "mistral") t.vocabulary = 32000;
  if (name == "llama") {
    t.mlp_width = 11008;
    t.context = 2048;
  } else if (name == "mistral") {
    t.mlp_width = 14336;
    t.kv_heads = 8;
    t.context = 131072;
  } else {
    t.vocabulary = 151936;
    t.mlp_width = 22016;
    t.context = 32768;
    if (name == "qwen3") t.head_size = 128;
  }
  return model;
}

template <const char* const& style>
bool IsStyle(const ModelSpec& model) {
  return model.arch == "transformer" && model.transformer.style == style;
}

json WriteLlama(const ModelSpec& model) {
  const spec::TransformerSpec& t = model.transformer;
  json config = {
      {"vocab_size", t.vocabulary},        {"hidden_size", t.width},
      {"num_hidden_layers", t.layers},     {"num_attention_heads", t.heads},
      {"num_key_value_heads", t.kv_heads}, {"head_dim", t.head_size},
      {"intermediate_size", t.mlp_width},  {"max_position_embeddings", t.context},
      {"rms_norm_eps", t.norm_epsilon},    {"hidden_act", ActivationTo(model.activation)},
      {"tie_word_embeddings", t.tied},     {"attention_dropout", 0.0}};
  config.update(RopeOptions(t.rope));
  if (t.style == "llama" || t.style == "qwen3") config["attention_bias"] = t.attention_bias;
  if (t.style == "llama") config["mlp_bias"] = t.mlp_bias;
  if (t.style == "mistral") {
    config["sliding_window"] = t.window > 0 ? json(t.window) : json(nullptr);
  }
  if (t.style == "qwen2" || t.style == "qwen3") {
    config["use_sliding_window"] = t.window > 0;
    config["sliding_window"] = t.window > 0 ? json(t.window) : json(nullptr);
    config["max_window_layers"] = t.window > 0 ? t.window_from : t.layers;
  }
  return config;
}

constexpr const char* kLlama = "llama";
constexpr const char* kMistral = "mistral";
constexpr const char* kQwen2 = "qwen2";
constexpr const char* kQwen3 = "qwen3";

template <const char* const& style>
Family LlamaLike(std::vector<Family::Class> classes) {
  Family f;
  f.model_type = style;
  f.classes = std::move(classes);
  f.owns = &IsStyle<style>;
  f.defaults = &LlamaDefaults<style>;
  f.read = &ReadLlama;
  f.write = &WriteLlama;
  f.body = "model.";
  f.heads = {"lm_head.", "score."};
  f.buffers = {".rotary_emb.inv_freq"};
  return f;
}

}  // namespace

std::vector<Family> LlamaFamilies() {
  return {LlamaLike<kLlama>({{"LlamaModel", Task::kBase},
                             {"LlamaForCausalLM", Task::kLanguageModel},
                             {"LlamaForSequenceClassification", Task::kTextClassification}}),
          LlamaLike<kMistral>({{"MistralModel", Task::kBase},
                               {"MistralForCausalLM", Task::kLanguageModel},
                               {"MistralForSequenceClassification", Task::kTextClassification}}),
          LlamaLike<kQwen2>({{"Qwen2Model", Task::kBase},
                             {"Qwen2ForCausalLM", Task::kLanguageModel},
                             {"Qwen2ForSequenceClassification", Task::kTextClassification}}),
          LlamaLike<kQwen3>({{"Qwen3Model", Task::kBase},
                             {"Qwen3ForCausalLM", Task::kLanguageModel},
                             {"Qwen3ForSequenceClassification", Task::kTextClassification}})};
}

}  // namespace lepton::huggingface
