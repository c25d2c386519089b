// GPT-2.
#include "runtime/formats/huggingface/family.h"

namespace lepton::huggingface {
namespace {

using nlohmann::json;
using spec::ModelSpec;
using Task = Config::Task;

bool IsGpt2(const ModelSpec& model) {
  return model.arch == "transformer" && model.transformer.style == "gpt2";
}

void ReadGpt2(ConfigFields& fields, ModelSpec& model) {
  spec::TransformerSpec& t = model.transformer;
  fields.Integer("vocab_size", t.vocabulary, 1, 1 << 30);
  fields.Integer("n_embd", t.width, 1, 65536);
  fields.Integer("n_layer", t.layers, 1, 1024);
  fields.Integer("n_head", t.heads, 1, 4096);
  t.mlp_width = 4 * t.width;
  fields.Integer("n_inner", t.mlp_width, 1, 1 << 20);
  fields.Integer("n_positions", t.context, 1, 1 << 30);
  fields.Number("layer_norm_epsilon", t.norm_epsilon, 1e-20, 1);
  fields.Number("resid_pdrop", model.dropout, 0, 0.999);
  fields.Activation("activation_function", model.activation);
  fields.Bool("tie_word_embeddings", t.tied);
  fields.MustBe("scale_attn_weights", true);
  fields.MustBe("scale_attn_by_inverse_layer_idx", false);
  fields.PassOver({"embd_pdrop", "reorder_and_upcast_attn", "n_ctx", "summary_type",
                   "summary_use_proj", "summary_activation", "summary_proj_to_labels",
                   "summary_first_dropout"});
}

ModelSpec Gpt2Defaults() {
  ModelSpec model = spec::DefaultModel("transformer", "gpt2");
  model.dropout = 0.1;
  spec::TransformerSpec& t = model.transformer;
  t.vocabulary = 50257;
  t.width = 768;
  t.layers = t.heads = 12;
  t.context = 1024;
  return model;
}

json WriteGpt2(const ModelSpec& model) {
  const spec::TransformerSpec& t = model.transformer;
  return {{"vocab_size", t.vocabulary},
          {"n_embd", t.width},
          {"n_layer", t.layers},
          {"n_head", t.heads},
          {"n_inner", t.mlp_width},
          {"n_positions", t.context},
          {"layer_norm_epsilon", t.norm_epsilon},
          {"resid_pdrop", model.dropout},
          {"embd_pdrop", model.dropout},
          {"attn_pdrop", 0.0},
          {"activation_function", ActivationTo(model.activation)},
          {"tie_word_embeddings", t.tied}};
}

}  // namespace

Family Gpt2Family() {
  Family f;
  f.model_type = "gpt2";
  f.classes = {{"GPT2Model", Task::kBase},
               {"GPT2LMHeadModel", Task::kLanguageModel},
               {"GPT2ForSequenceClassification", Task::kTextClassification}};
  f.owns = &IsGpt2;
  f.defaults = &Gpt2Defaults;
  f.read = &ReadGpt2;
  f.write = &WriteGpt2;
  f.body = "transformer.";
  f.heads = {"lm_head.", "score."};
  f.buffers = {".attn.bias", ".attn.masked_bias"};
  return f;
}

}  // namespace lepton::huggingface
