#include "runtime/nn/transformer.h"

#include <cmath>

namespace lepton::nn {
namespace {

using graph::Attributes;
using graph::kNoValue;
using graph::ValueId;
using Config = TransformerConfig;

constexpr double kDeviation = 0.02;  // of first weights, in GPT-2, BERT and their successors

// How rotary positions turn pairs (runtime/ops/rope.h).
Attributes Turns(const Config& config) {
  const spec::RopeSpec& r = config.rope;
  Attributes attributes{{"base", r.base}};
  // What dynamic does otherwise is beyond the context.
  if (r.scaling == "none" || r.scaling == "dynamic") return attributes;
  attributes.Set("scaling", r.scaling);
  if (r.scaling == "longrope") {
    // By the model, not by the text: a text that grows keeps its keys, and gets the same numbers
    // whatever is computed with it.
    const bool longer = config.context > r.original_context;
    attributes.Set("factors", longer ? r.long_factor : r.short_factor);
  } else {
    attributes.Set("factor", r.factor);
  }
  if (r.scaling == "llama3") {
    attributes.Set("low_freq_factor", r.low_freq_factor);
    attributes.Set("high_freq_factor", r.high_freq_factor);
    attributes.Set("original_context", r.original_context);
  }
  if (r.scaling == "yarn") {
    attributes.Set("beta_fast", r.beta_fast);
    attributes.Set("beta_slow", r.beta_slow);
    attributes.Set("truncate", int64_t{r.truncate});
    attributes.Set("original_context", r.original_context);
  }
  const double magnitude = spec::AttentionFactor(r);
  if (magnitude != 1) attributes.Set("magnitude", magnitude);
  return attributes;
}

class TransformerBuilder {
 public:
  TransformerBuilder(ModelBuilder& builder, const Config& config, const TransformerNames& names)
      : b_(builder), c_(config), n_(names) {}

  ValueId tokens = kNoValue, mask = kNoValue, token_types = kNoValue;
  const DecoderInputs* decoder = nullptr;  // null: texts are there from their beginning on

  Result<ValueId> Build();
  Result<ValueId> Layers(ValueId x);

 private:
  Status CheckShares() const;
  Result<ValueId> Embeddings();
  Result<ValueId> Layer(int64_t index, ValueId x);
  Result<ValueId> Attention(int64_t index, const std::string& layer, ValueId x);
  Result<ValueId> Positioned(const std::string& norm, ValueId x, int64_t heads);
  Result<ValueId> Mlp(const std::string& layer, ValueId x);
  Result<ValueId> Head(ValueId x);
  Result<ValueId> TextHead(ValueId x);
  Result<ValueId> OfLengthOne(ValueId x);

  Result<ValueId> Norm(const std::string& name, ValueId x);
  // What leaves the residual stream is divided over ranks by its outputs, in these sections (none:
  // one), what goes back into it by its inputs.
  Result<ValueId> Dense(const std::string& name, ValueId x, int64_t out, bool bias,
                        std::vector<int64_t> sections = {});
  Result<ValueId> IntoResidual(const std::string& name, ValueId x, int64_t in, bool bias);
  int64_t Share(int64_t whole) const { return whole / b_.tensor().ranks; }
  Result<ValueId> HeadDense(const std::string& name, ValueId x, int64_t out, bool bias);
  Result<ValueId> Add(ValueId a, ValueId b) { return b_.graph().Add("add", {a, b}); }
  ValueId Table(const std::string& name, int64_t rows) {
    return b_.Parameter(name + ".weight", {rows, c_.width}, FirstValues::Normal(kDeviation));
  }

  ModelBuilder& b_;
  const Config& c_;
  const TransformerNames& n_;
  ValueId embedding_ = kNoValue;
};

Result<ValueId> TransformerBuilder::Build() {
  LEPTON_ASSIGN_OR_RETURN(ValueId x, Embeddings());
  LEPTON_ASSIGN_OR_RETURN(x, Layers(x));
  return Head(x);
}

Result<ValueId> TransformerBuilder::Layers(ValueId x) {
  LEPTON_RETURN_IF_ERROR(CheckShares());
  for (int64_t i = 0; i < c_.layers; ++i) {
    b_.graph().BeginBlock();
    LEPTON_ASSIGN_OR_RETURN(x, Layer(i, x));
  }
  b_.graph().EndBlock();
  return c_.norm_first ? Norm(n_.body + n_.final_norm, x) : Result<ValueId>(x);
}

Result<ValueId> TransformerBuilder::Embeddings() {
  graph::Graph& g = b_.graph();
  embedding_ = Table(n_.body + n_.tokens, c_.vocabulary);
  LEPTON_ASSIGN_OR_RETURN(ValueId x, g.Add("gather", {embedding_, tokens}, {}, "tokens"));
  if (c_.positions == Config::Positions::kLearned) {
    const ValueId table = Table(n_.body + n_.positions, c_.context);
    ValueId rows = kNoValue;
    if (decoder != nullptr) {
      rows = decoder->positions;
    } else {
      LEPTON_ASSIGN_OR_RETURN(rows,
                              g.Add("positions", {tokens}, {{"limit", c_.context}}, "positions"));
    }
    LEPTON_ASSIGN_OR_RETURN(const ValueId positions, g.Add("gather", {table, rows}));
    LEPTON_ASSIGN_OR_RETURN(x, Add(x, positions));
  }
  if (c_.token_types > 0) {
    const ValueId table = Table(n_.body + n_.token_types, c_.token_types);
    LEPTON_ASSIGN_OR_RETURN(const ValueId types, g.Add("gather", {table, token_types}));
    LEPTON_ASSIGN_OR_RETURN(x, Add(x, types));
  }
  if (c_.embedding_norm) {
    LEPTON_ASSIGN_OR_RETURN(x, Norm(n_.body + n_.embedding_norm, x));
  }
  return b_.Dropout("embeddings", x, c_.dropout);
}

Result<ValueId> TransformerBuilder::Norm(const std::string& name, ValueId x) {
  if (!c_.rms_norm) return b_.LayerNorm(name, x, c_.width, c_.norm_epsilon);
  const ValueId gain = b_.Parameter(name + ".weight", {c_.width}, FirstValues::Constant(1));
  return b_.graph().Add("rms_norm", {x, gain}, {{"epsilon", c_.norm_epsilon}}, name);
}

Result<ValueId> TransformerBuilder::Dense(const std::string& name, ValueId x, int64_t out,
                                          bool bias, std::vector<int64_t> sections) {
  return b_.Linear(name, x,
                   {.in = c_.width,
                    .out = out,
                    .bias = bias,
                    .transposed = c_.transposed,
                    .first = FirstValues::Normal(kDeviation),
                    .cut = ModelBuilder::Cut::kOut,
                    .sections = std::move(sections)});
}

Result<ValueId> TransformerBuilder::IntoResidual(const std::string& name, ValueId x, int64_t in,
                                                 bool bias) {
  // Each layer adds twice to the residual stream (Radford et al. 2019, section 2.3).
  const double deviation = c_.scaled_residuals
                               ? kDeviation / std::sqrt(2.0 * static_cast<double>(c_.layers))
                               : kDeviation;
  return b_.Linear(name, x,
                   {.in = in,
                    .out = c_.width,
                    .bias = bias,
                    .transposed = c_.transposed,
                    .first = FirstValues::Normal(deviation),
                    .cut = ModelBuilder::Cut::kIn});
}

// Heads and the MLP's inner columns are what ranks share out.
Status TransformerBuilder::CheckShares() const {
  const int ranks = b_.tensor().ranks;
  for (const auto& [field, count] : {std::pair<const char*, int64_t>{"heads", c_.heads},
                                     {"kv_heads", c_.kv_heads},
                                     {"mlp_width", c_.mlp_width}}) {
    if (count % ranks == 0) continue;
    return InvalidArgument("parallel.tensor: " + std::to_string(ranks) + " must divide model." +
                           field + ", " + std::to_string(count));
  }
  return Status::Ok();
}

Result<ValueId> TransformerBuilder::Layer(int64_t index, ValueId x) {
  const std::string layer = n_.body + n_.layer + std::to_string(index) + ".";
  const auto block = [&](const std::string& norm, auto inner) -> Result<ValueId> {
    ValueId y = x;
    if (c_.norm_first) {
      LEPTON_ASSIGN_OR_RETURN(y, Norm(layer + norm, y));
    }
    LEPTON_ASSIGN_OR_RETURN(y, inner(y));
    LEPTON_ASSIGN_OR_RETURN(y, b_.Dropout(layer + norm, y, c_.dropout));
    LEPTON_ASSIGN_OR_RETURN(y, Add(x, y));
    return c_.norm_first ? y : Norm(layer + norm, y);
  };
  LEPTON_ASSIGN_OR_RETURN(
      x, block(n_.attention_norm, [&](ValueId y) { return Attention(index, layer, y); }));
  return block(n_.mlp_norm, [&](ValueId y) { return Mlp(layer, y); });
}

// Queries or keys [.., heads * size], normalised and turned by their positions.
Result<ValueId> TransformerBuilder::Positioned(const std::string& norm, ValueId x, int64_t heads) {
  graph::Graph& g = b_.graph();
  if (c_.qk_norm) {
    ValueId gain = b_.Parameter(norm + ".weight", {c_.head_size}, FirstValues::Constant(1));
    // It is for every head, of which the ranks have some each.
    LEPTON_ASSIGN_OR_RETURN(gain, b_.IntoShares(gain));
    LEPTON_ASSIGN_OR_RETURN(
        x, g.Add("reshape", {x},
                 {{"shape",
                   std::vector<int64_t>{Shape::kBatch, Shape::kSequence, heads, c_.head_size}}}));
    LEPTON_ASSIGN_OR_RETURN(x, g.Add("rms_norm", {x, gain}, {{"epsilon", c_.norm_epsilon}}, norm));
    LEPTON_ASSIGN_OR_RETURN(
        x, g.Add("reshape", {x},
                 {{"shape",
                   std::vector<int64_t>{Shape::kBatch, Shape::kSequence, heads * c_.head_size}}}));
  }
  LEPTON_ASSIGN_OR_RETURN(x, b_.Narrow(x));
  if (c_.positions != Config::Positions::kRotary) return x;
  Attributes attributes = Turns(c_);
  attributes.Set(decoder == nullptr ? "size" : "dims", c_.head_size);
  if (decoder == nullptr) {
    if (c_.bounded) attributes.Set("limit", c_.context);
    return g.Add("rope", {x}, std::move(attributes));
  }
  // One node for all layers, once equal ones are merged.
  LEPTON_ASSIGN_OR_RETURN(const ValueId angles,
                          g.Add("rope_angles", {decoder->positions}, std::move(attributes)));
  return g.Add("rope", {x, angles}, {{"size", c_.head_size}});
}

Result<ValueId> TransformerBuilder::Attention(int64_t index, const std::string& layer, ValueId x) {
  graph::Graph& g = b_.graph();
  const int64_t inner = c_.heads * c_.head_size;
  const int64_t kv_inner = c_.kv_heads * c_.head_size;
  Attributes attributes{{"heads", Share(c_.heads)}, {"kv_heads", Share(c_.kv_heads)}};
  LEPTON_ASSIGN_OR_RETURN(x, b_.IntoShares(x));
  if (c_.causal && decoder == nullptr) attributes.Set("causal", int64_t{1});
  if (c_.window > 0 && index >= c_.window_from) attributes.Set("window", c_.window);
  ValueId q = kNoValue, k = kNoValue, v = kNoValue;
  if (c_.fused_qkv) {
    LEPTON_ASSIGN_OR_RETURN(ValueId qkv, Dense(layer + n_.qkv, x, inner + 2 * kv_inner, c_.qkv_bias,
                                               {inner, kv_inner, kv_inner}));
    LEPTON_ASSIGN_OR_RETURN(qkv, b_.Narrow(qkv));
    if (c_.positions != Config::Positions::kRotary && !c_.qk_norm && decoder == nullptr) {
      std::vector<ValueId> arguments = {qkv};
      if (mask != kNoValue) arguments.push_back(mask);
      LEPTON_ASSIGN_OR_RETURN(const ValueId y, g.Add("packed_attention", std::move(arguments),
                                                     std::move(attributes), layer + "attention"));
      return IntoResidual(layer + n_.out, y, inner, c_.out_bias);
    }
    const auto part = [&](int64_t begin, int64_t end) {
      return g.Add("slice", {qkv}, {{"axis", int64_t{2}}, {"begin", begin}, {"end", end}});
    };
    const int64_t queries = Share(inner), keys = Share(kv_inner);
    LEPTON_ASSIGN_OR_RETURN(q, part(0, queries));
    LEPTON_ASSIGN_OR_RETURN(k, part(queries, queries + keys));
    LEPTON_ASSIGN_OR_RETURN(v, part(queries + keys, queries + 2 * keys));
  } else {
    LEPTON_ASSIGN_OR_RETURN(q, Dense(layer + n_.query, x, inner, c_.qkv_bias));
    LEPTON_ASSIGN_OR_RETURN(k, Dense(layer + n_.key, x, kv_inner, c_.qkv_bias));
    LEPTON_ASSIGN_OR_RETURN(v, Dense(layer + n_.value, x, kv_inner, c_.qkv_bias));
  }
  LEPTON_ASSIGN_OR_RETURN(q, Positioned(layer + n_.query_norm, q, Share(c_.heads)));
  LEPTON_ASSIGN_OR_RETURN(k, Positioned(layer + n_.key_norm, k, Share(c_.kv_heads)));
  LEPTON_ASSIGN_OR_RETURN(v, b_.Narrow(v));
  std::vector<ValueId> arguments = {q, k, v};
  if (decoder != nullptr) {
    attributes.Set("capacity", decoder->capacity);
    for (const ValueId input : {decoder->slots, decoder->lengths, decoder->caches[index]}) {
      arguments.push_back(input);
    }
  } else if (mask != kNoValue) {
    arguments.push_back(mask);
  }
  LEPTON_ASSIGN_OR_RETURN(const ValueId y,
                          g.Add(decoder == nullptr ? "attention" : "cached_attention",
                                std::move(arguments), std::move(attributes), layer + "attention"));
  return IntoResidual(layer + n_.out, y, inner, c_.out_bias);
}

Result<ValueId> TransformerBuilder::Mlp(const std::string& layer, ValueId x) {
  ValueId inner = kNoValue;
  LEPTON_ASSIGN_OR_RETURN(x, b_.IntoShares(x));
  if (c_.gated) {
    LEPTON_ASSIGN_OR_RETURN(ValueId gate, Dense(layer + n_.gate, x, c_.mlp_width, c_.mlp_bias));
    LEPTON_ASSIGN_OR_RETURN(ValueId up, Dense(layer + n_.up, x, c_.mlp_width, c_.mlp_bias));
    LEPTON_ASSIGN_OR_RETURN(gate, b_.Narrow(gate));
    LEPTON_ASSIGN_OR_RETURN(up, b_.Narrow(up));
    LEPTON_ASSIGN_OR_RETURN(gate, b_.Activation(c_.activation, layer + n_.gate, gate));
    LEPTON_ASSIGN_OR_RETURN(inner, b_.graph().Add("mul", {gate, up}));
  } else {
    LEPTON_ASSIGN_OR_RETURN(inner, Dense(layer + n_.up, x, c_.mlp_width, c_.mlp_bias));
    LEPTON_ASSIGN_OR_RETURN(inner, b_.Narrow(inner));
    LEPTON_ASSIGN_OR_RETURN(inner, b_.Activation(c_.activation, layer + n_.up, inner));
  }
  return IntoResidual(layer + n_.down, inner, c_.mlp_width, c_.mlp_bias);
}

// The heads are plain linear layers, [out, in], in every family.
Result<ValueId> TransformerBuilder::HeadDense(const std::string& name, ValueId x, int64_t out,
                                              bool bias) {
  return b_.Linear(name, x,
                   {.in = c_.width,
                    .out = out,
                    .bias = bias,
                    .transposed = true,
                    .first = FirstValues::Normal(kDeviation)});
}

Result<ValueId> TransformerBuilder::TextHead(ValueId x) {
  std::vector<ValueId> arguments = {x};
  // The first position is the first token's even where padding is in front.
  if (mask != kNoValue && c_.pool != "first") arguments.push_back(mask);
  LEPTON_ASSIGN_OR_RETURN(x,
                          b_.graph().Add("pool_tokens", std::move(arguments), {{"kind", c_.pool}}));
  if (c_.pooler) {
    LEPTON_ASSIGN_OR_RETURN(x, HeadDense(n_.body + n_.pooler, x, c_.width, true));
    LEPTON_ASSIGN_OR_RETURN(x, b_.Activation("tanh", n_.pooler, x));
  }
  if (c_.head == Config::Head::kPooled) return c_.normalize ? OfLengthOne(x) : x;
  if (c_.head_dense) {
    LEPTON_ASSIGN_OR_RETURN(x, HeadDense(n_.text_dense, x, c_.width, true));
    LEPTON_ASSIGN_OR_RETURN(x, b_.Activation("relu", n_.text_dense, x));
  }
  LEPTON_ASSIGN_OR_RETURN(x, b_.Dropout("head", x, c_.dropout));
  return HeadDense(n_.text_head, x, c_.outputs, c_.head_bias);
}

// Each row by itself: its root mean square is its length / sqrt(width).
Result<ValueId> TransformerBuilder::OfLengthOne(ValueId x) {
  graph::Graph& g = b_.graph();
  LEPTON_ASSIGN_OR_RETURN(const ValueId row,
                          g.Add("reduce", {x}, {{"axis", int64_t{0}}, {"kind", "sum"}}));
  const double share = 1 / std::sqrt(static_cast<double>(c_.width));
  LEPTON_ASSIGN_OR_RETURN(const ValueId gain, g.Add("fill", {row}, {{"value", share}}));
  return g.Add("rms_norm", {x, gain}, {{"epsilon", 1e-24}}, "normalize");
}

Result<ValueId> TransformerBuilder::Head(ValueId x) {
  b_.BeginHead();
  if (c_.head == Config::Head::kText || c_.head == Config::Head::kPooled) return TextHead(x);
  if (c_.head == Config::Head::kNone) return x;
  if (c_.head == Config::Head::kTokens) {
    LEPTON_ASSIGN_OR_RETURN(x, b_.Dropout("head", x, c_.dropout));
    return HeadDense(n_.token_head, x, c_.outputs, true);
  }
  if (decoder != nullptr) {
    LEPTON_ASSIGN_OR_RETURN(
        x, b_.graph().Add("pool_tokens", {x, decoder->mask}, {{"kind", "last"}}, "last"));
  }
  if (!c_.tied) return HeadDense(n_.language_model, x, c_.vocabulary, false);
  return b_.Matmul(n_.language_model, x, embedding_, /*transposed=*/true);
}

}  // namespace

Result<Signature> TransformerSignature(const spec::ModelSpec& model, int64_t outputs,
                                       bool per_token) {
  LEPTON_ASSIGN_OR_RETURN(const Config config, MakeTransformerConfig(model, outputs, per_token));
  const Shape texts({Shape::kBatch, Shape::kSequence});
  Signature signature;
  signature.inputs.push_back({"tokens", {DType::kI32, texts}, config.vocabulary});
  // What is padded lies after the text, where a causal model's tokens do not look.
  if (!config.causal || !per_token) signature.inputs.push_back({"mask", {DType::kF32, texts}});
  if (config.token_types > 0) {
    signature.inputs.push_back({"token_types", {DType::kI32, texts}, config.token_types});
  }
  signature.outputs = outputs;
  signature.per_token = per_token;
  return signature;
}

Result<ValueId> BuildDecoder(ModelBuilder& builder, const TransformerConfig& config,
                             const TransformerNames& names, const DecoderInputs& inputs) {
  if (config.head != Config::Head::kLanguageModel || !config.causal || config.token_types > 0) {
    return InvalidArgument("model: only language models that read from left to right go on");
  }
  TransformerBuilder transformer(builder, config, names);
  transformer.tokens = inputs.tokens;
  transformer.decoder = &inputs;
  return transformer.Build();
}

Result<ValueId> BuildTransformerLayers(ModelBuilder& builder, const TransformerConfig& config,
                                       const TransformerNames& names, ValueId x, ValueId mask) {
  TransformerBuilder layers(builder, config, names);
  layers.mask = mask;
  return layers.Layers(x);
}

Result<ValueId> BuildTransformer(ModelBuilder& builder, const TransformerConfig& config,
                                 const TransformerNames& names, const Signature& signature,
                                 std::span<const ValueId> inputs) {
  TransformerBuilder transformer(builder, config, names);
  for (size_t i = 0; i < inputs.size(); ++i) {
    const std::string& name = signature.inputs[i].name;
    if (name == "tokens") transformer.tokens = inputs[i];
    if (name == "mask") transformer.mask = inputs[i];
    if (name == "token_types") transformer.token_types = inputs[i];
  }
  if (transformer.tokens == kNoValue) {
    return InvalidArgument("model.arch: transformer takes texts as tokens only");
  }
  if (config.token_types > 0 && transformer.token_types == kNoValue) {
    return InvalidArgument("model.token_types: the data has no input token_types");
  }
  return transformer.Build();
}

Result<ValueId> BuildTransformer(ModelBuilder& builder, const Signature& signature,
                                 const spec::ModelSpec& model, std::span<const ValueId> inputs) {
  LEPTON_ASSIGN_OR_RETURN(const spec::ModelSpec resolved, ResolveTransformer(model, 0, 0));
  LEPTON_ASSIGN_OR_RETURN(const Config config,
                          MakeTransformerConfig(resolved, signature.outputs, signature.per_token));
  return BuildTransformer(builder, config, NamesOfStyle(model.transformer.style), signature,
                          inputs);
}

}  // namespace lepton::nn
