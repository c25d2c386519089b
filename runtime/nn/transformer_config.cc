#include "runtime/nn/transformer_config.h"

#include <algorithm>

namespace lepton::nn {
namespace {

using spec::ModelSpec;
using spec::TransformerSpec;

bool Encoder(const std::string& style) {
  return style == "bert" || style == "distilbert";
}

bool Rotary(const std::string& style) {
  return style != "gpt2" && !Encoder(style);
}

Status Field(const std::string& field, const std::string& what) {
  return InvalidArgument("model." + field + ": " + what);
}

// A size that the spec leaves open is the data's; one that it gives must hold the data's.
Status ResolveSize(const char* field, const char* what, int64_t data, int64_t& size) {
  if (size == 0) {
    if (data < 1) return Field(field, std::string("missing: the data does not say ") + what);
    size = data;
  }
  if (data <= size) return Status::Ok();
  return Field(field, std::to_string(size) + " is less than the data's " + std::to_string(data));
}

// Options that are a style's own.
Status CheckStyle(const TransformerSpec& t) {
  const auto only = [&](bool given, std::initializer_list<std::string_view> styles,
                        const char* field) {
    if (!given || std::find(styles.begin(), styles.end(), t.style) != styles.end()) {
      return Status::Ok();
    }
    std::string list;
    for (const std::string_view style : styles)
      list += (list.empty() ? "" : ", ") + std::string(style);
    return Field(field, "is for style " + list + " only, not " + t.style);
  };
  LEPTON_RETURN_IF_ERROR(only(t.attention_bias, {"llama", "qwen3"}, "attention_bias"));
  LEPTON_RETURN_IF_ERROR(only(t.mlp_bias, {"llama"}, "mlp_bias"));
  LEPTON_RETURN_IF_ERROR(only(t.window > 0, {"mistral", "qwen2", "qwen3"}, "window"));
  LEPTON_RETURN_IF_ERROR(only(t.window_from > 0, {"qwen2", "qwen3"}, "window_from"));
  LEPTON_RETURN_IF_ERROR(only(t.token_types > 0, {"bert"}, "token_types"));
  LEPTON_RETURN_IF_ERROR(only(t.pooler, {"bert"}, "pooler"));
  if (Rotary(t.style)) return Status::Ok();
  if (t.kv_heads != t.heads) {
    return Field("kv_heads", std::to_string(t.kv_heads) + " must be heads, " +
                                 std::to_string(t.heads) + ", for style " + t.style);
  }
  if (t.head_size * t.heads != t.width) {
    return Field("head_size",
                 std::to_string(t.head_size) + " must be width / heads for style " + t.style);
  }
  if (t.rope.scaling != "none")
    return Field("rope", "style " + t.style + " has no rotary positions");
  return Status::Ok();
}

// `pairs`: of a head.
Status CheckRope(const spec::RopeSpec& rope, int64_t pairs) {
  if (rope.scaling == "llama3" && !(rope.high_freq_factor > rope.low_freq_factor)) {
    return Field("rope.high_freq_factor", "must be greater than low_freq_factor");
  }
  if ((rope.scaling == "yarn" || rope.scaling == "dynamic") && !(rope.factor >= 1)) {
    return Field("rope.factor", "must be at least 1 for " + rope.scaling);
  }
  if (rope.scaling == "yarn" && !(rope.base > 1)) {
    return Field("rope.base", "must be above 1 for yarn");
  }
  if (rope.scaling == "yarn" && !(rope.beta_fast >= rope.beta_slow)) {
    return Field("rope.beta_fast", "must not be less than beta_slow");
  }
  if (rope.scaling != "longrope") return Status::Ok();
  if (rope.original_context < 2) return Field("rope.original_context", "must be above 1");
  for (const auto& [field, factors] : {std::pair{"rope.short_factor", &rope.short_factor},
                                       {"rope.long_factor", &rope.long_factor}}) {
    if (static_cast<int64_t>(factors->size()) == pairs) continue;
    return Field(field, "has " + std::to_string(factors->size()) + " numbers; must have " +
                            std::to_string(pairs) + ", one for each pair of a head");
  }
  return Status::Ok();
}

Status CheckSizes(const TransformerSpec& t) {
  if (t.heads % t.kv_heads != 0) {
    return Field("kv_heads",
                 std::to_string(t.kv_heads) + " must divide heads, " + std::to_string(t.heads));
  }
  if (Rotary(t.style) && t.head_size % 2 != 0) {
    return Field("head_size", std::to_string(t.head_size) + " must be even for rotary positions");
  }
  return Rotary(t.style) ? CheckRope(t.rope, t.head_size / 2) : Status::Ok();
}

Status CheckHead(const ModelSpec& model, bool per_token, TransformerConfig& c) {
  const bool causal = c.causal;
  if (c.normalize && model.head != "none") return Field("normalize", "is for head none only");
  if (model.head == "none") {
    c.head = per_token ? TransformerConfig::Head::kNone : TransformerConfig::Head::kPooled;
    if (c.outputs == c.width) return Status::Ok();
    return Field("head", "none gives " + std::to_string(c.width) + " outputs, the width; not " +
                             std::to_string(c.outputs));
  }
  if (!per_token) {
    c.head = TransformerConfig::Head::kText;
    return Status::Ok();
  }
  c.head = causal ? TransformerConfig::Head::kLanguageModel : TransformerConfig::Head::kTokens;
  if (!causal || c.outputs == c.vocabulary) return Status::Ok();
  return Field("vocabulary", std::to_string(c.vocabulary) +
                                 " must be the number of outputs of a language model, " +
                                 std::to_string(c.outputs));
}

}  // namespace

Result<ModelSpec> ResolveTransformer(const ModelSpec& model, int64_t data_vocabulary,
                                     int64_t data_context) {
  ModelSpec resolved = model;
  TransformerSpec& t = resolved.transformer;
  const auto styles =
      std::find(std::begin(spec::kTransformerStyles), std::end(spec::kTransformerStyles), t.style);
  if (styles == std::end(spec::kTransformerStyles)) {
    return Field("style", "'" + t.style +
                              "' is unknown: must be gpt2, llama, mistral, qwen2, qwen3, bert or "
                              "distilbert");
  }
  for (const auto& [field, size] : {std::pair<const char*, int64_t>{"layers", t.layers},
                                    {"heads", t.heads},
                                    {"width", t.width}}) {
    if (size < 1) return Field(field, std::to_string(size) + ": must be at least 1");
  }
  LEPTON_RETURN_IF_ERROR(
      ResolveSize("vocabulary", "how many tokens there are", data_vocabulary, t.vocabulary));
  LEPTON_RETURN_IF_ERROR(ResolveSize("context", "how long its texts are", data_context, t.context));
  if (t.kv_heads == 0) t.kv_heads = t.heads;
  if (t.head_size == 0) {
    if (t.width % t.heads != 0) {
      return Field("width", std::to_string(t.width) + " must be a multiple of heads, " +
                                std::to_string(t.heads));
    }
    t.head_size = t.width / t.heads;
  }
  if (t.mlp_width == 0) {
    t.mlp_width = Rotary(t.style) ? (t.width * 8 / 3 + 31) / 32 * 32 : 4 * t.width;
  }
  LEPTON_RETURN_IF_ERROR(CheckSizes(t));
  LEPTON_RETURN_IF_ERROR(CheckStyle(t));
  return resolved;
}

Result<TransformerConfig> MakeTransformerConfig(const ModelSpec& model, int64_t outputs,
                                                bool per_token) {
  const TransformerSpec& t = model.transformer;
  TransformerConfig c;
  c.layers = t.layers;
  c.heads = t.heads;
  c.kv_heads = t.kv_heads;
  c.head_size = t.head_size;
  c.width = t.width;
  c.mlp_width = t.mlp_width;
  c.context = t.context;
  c.vocabulary = t.vocabulary;
  c.token_types = t.token_types;
  c.norm_epsilon = t.norm_epsilon;
  c.rope = t.rope;
  c.activation = model.activation;
  c.window = t.window;
  c.window_from = t.window_from;
  c.tied = t.tied;
  c.pool = t.pool;
  c.normalize = t.normalize;
  c.dropout = model.dropout;
  c.outputs = outputs;
  if (t.style == "gpt2") {
    c.fused_qkv = true;
    c.transposed = false;
    c.scaled_residuals = true;
  } else if (Encoder(t.style)) {
    c.causal = false;
    c.norm_first = false;
    c.embedding_norm = true;
    c.pooler = t.pooler && t.pool == "first";
    c.head_dense = t.style == "distilbert";
    c.head_bias = true;
  } else {
    c.rms_norm = true;
    c.positions = TransformerConfig::Positions::kRotary;
    c.gated = true;
    c.qkv_bias = t.attention_bias || t.style == "qwen2";
    c.out_bias = t.attention_bias;
    c.mlp_bias = t.mlp_bias;
    c.qk_norm = t.style == "qwen3";
  }
  c.bounded = c.positions == TransformerConfig::Positions::kLearned ||
              t.rope.scaling == "dynamic" || t.rope.scaling == "longrope";
  LEPTON_RETURN_IF_ERROR(CheckHead(model, per_token, c));
  return c;
}

}  // namespace lepton::nn
