// BERT and what shares its config (MiniLM, sentence encoders), and DistilBERT.
#include "runtime/formats/huggingface/family.h"

namespace lepton::huggingface {
namespace {

using nlohmann::json;
using spec::ModelSpec;
using Task = Config::Task;

template <const char* const& style>
bool HasStyle(const ModelSpec& model) {
  return model.arch == "transformer" && model.transformer.style == style;
}

constexpr const char* kBert = "bert";
constexpr const char* kDistilbert = "distilbert";
constexpr char kEpsilon[] = "lepton_norm_epsilon";  // of public models it is always the same

void ReadBert(ConfigFields& fields, ModelSpec& model) {
  spec::TransformerSpec& t = model.transformer;
  fields.Integer("vocab_size", t.vocabulary, 1, 1 << 30);
  fields.Integer("hidden_size", t.width, 1, 65536);
  fields.Integer("num_hidden_layers", t.layers, 1, 1024);
  fields.Integer("num_attention_heads", t.heads, 1, 4096);
  fields.Integer("intermediate_size", t.mlp_width, 1, 1 << 20);
  fields.Integer("max_position_embeddings", t.context, 1, 1 << 30);
  fields.Integer("type_vocab_size", t.token_types, 0, 1024);
  fields.Number("layer_norm_eps", t.norm_epsilon, 1e-20, 1);
  fields.Number("hidden_dropout_prob", model.dropout, 0, 0.999);
  fields.Activation("hidden_act", model.activation);
  fields.MustBe("position_embedding_type", "absolute");
  fields.PassOver({"classifier_dropout", "tie_word_embeddings"});
  // Left over from the first release.
  fields.PassOver({"directionality", "pooler_fc_size", "pooler_num_attention_heads",
                   "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type"});
}

ModelSpec BertDefaults() {
  ModelSpec model = spec::DefaultModel("transformer", kBert);
  model.dropout = 0.1;
  spec::TransformerSpec& t = model.transformer;
  t.vocabulary = 30522;
  t.width = 768;
  t.layers = t.heads = 12;
  t.mlp_width = 3072;
  t.context = 512;
  return model;
}

json WriteBert(const ModelSpec& model) {
  const spec::TransformerSpec& t = model.transformer;
  return {{"vocab_size", t.vocabulary},
          {"hidden_size", t.width},
          {"num_hidden_layers", t.layers},
          {"num_attention_heads", t.heads},
          {"intermediate_size", t.mlp_width},
          {"max_position_embeddings", t.context},
          {"type_vocab_size", t.token_types},
          {"layer_norm_eps", t.norm_epsilon},
          {"hidden_dropout_prob", model.dropout},
          {"attention_probs_dropout_prob", 0.0},
          {"hidden_act", ActivationTo(model.activation)},
          {"position_embedding_type", "absolute"}};
}

void ReadDistilbert(ConfigFields& fields, ModelSpec& model) {
  spec::TransformerSpec& t = model.transformer;
  fields.Integer("vocab_size", t.vocabulary, 1, 1 << 30);
  fields.Integer("dim", t.width, 1, 65536);
  fields.Integer("n_layers", t.layers, 1, 1024);
  fields.Integer("n_heads", t.heads, 1, 4096);
  fields.Integer("hidden_dim", t.mlp_width, 1, 1 << 20);
  fields.Integer("max_position_embeddings", t.context, 1, 1 << 30);
  fields.Number("dropout", model.dropout, 0, 0.999);
  fields.Number(kEpsilon, t.norm_epsilon, 1e-20, 1);
  fields.Activation("activation", model.activation);
  // Sinusoids are first values: the table is in the file.
  fields.PassOver({"sinusoidal_pos_embds", "seq_classif_dropout", "qa_dropout", "tie_weights_",
                   "tie_word_embeddings"});
}

ModelSpec DistilbertDefaults() {
  ModelSpec model = spec::DefaultModel("transformer", kDistilbert);
  model.dropout = 0.1;
  spec::TransformerSpec& t = model.transformer;
  t.vocabulary = 30522;
  t.width = 768;
  t.layers = 6;
  t.heads = 12;
  t.mlp_width = 3072;
  t.context = 512;
  return model;
}

json WriteDistilbert(const ModelSpec& model) {
  const spec::TransformerSpec& t = model.transformer;
  json options = {{"vocab_size", t.vocabulary},
                  {"dim", t.width},
                  {"n_layers", t.layers},
                  {"n_heads", t.heads},
                  {"hidden_dim", t.mlp_width},
                  {"max_position_embeddings", t.context},
                  {"dropout", model.dropout},
                  {"attention_dropout", 0.0},
                  {"activation", ActivationTo(model.activation)},
                  {"sinusoidal_pos_embds", false}};
  const double usual = DistilbertDefaults().transformer.norm_epsilon;
  if (t.norm_epsilon != usual) options[kEpsilon] = t.norm_epsilon;
  return options;
}

}  // namespace

Family BertFamily() {
  Family f;
  f.model_type = kBert;
  f.classes = {{"BertModel", Task::kBase},
               {"BertForSequenceClassification", Task::kTextClassification},
               {"BertForTokenClassification", Task::kTokenClassification},
               {"BertForMaskedLM", Task::kBase},
               {"BertForPreTraining", Task::kBase},
               {"BertForNextSentencePrediction", Task::kBase}};
  f.owns = &HasStyle<kBert>;
  f.defaults = &BertDefaults;
  f.read = &ReadBert;
  f.write = &WriteBert;
  f.body = "bert.";
  f.heads = {"classifier."};
  f.unused_heads = {"cls."};
  f.buffers = {"embeddings.position_ids", "embeddings.token_type_ids"};
  f.pooler = "bert.pooler.";
  return f;
}

Family DistilbertFamily() {
  Family f;
  f.model_type = kDistilbert;
  f.classes = {{"DistilBertModel", Task::kBase},
               {"DistilBertForSequenceClassification", Task::kTextClassification},
               {"DistilBertForTokenClassification", Task::kTokenClassification},
               {"DistilBertForMaskedLM", Task::kBase}};
  f.owns = &HasStyle<kDistilbert>;
  f.defaults = &DistilbertDefaults;
  f.read = &ReadDistilbert;
  f.write = &WriteDistilbert;
  f.body = "distilbert.";
  f.heads = {"pre_classifier.", "classifier."};
  f.unused_heads = {"vocab_transform.", "vocab_layer_norm.", "vocab_projector."};
  f.buffers = {"embeddings.position_ids"};
  return f;
}

}  // namespace lepton::huggingface
