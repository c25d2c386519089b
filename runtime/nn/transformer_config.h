// A transformer in all its parts, whatever family it comes from, and how a family names them.
// Threads: plain values; pure functions.
#pragma once

#include <string>

#include "runtime/nn/signature.h"
#include "runtime/spec/model_spec.h"

namespace lepton::nn {

struct TransformerConfig {
  enum class Positions : uint8_t { kNone, kLearned, kRotary };
  enum class Head : uint8_t {
    kNone,           // the last hidden states
    kPooled,         // a row of them per text
    kLanguageModel,  // logits of the next token
    kTokens,         // a class per token
    kText,           // a class or value per text
  };

  int64_t layers = 0;
  int64_t heads = 0, kv_heads = 0, head_size = 0;
  int64_t width = 0, mlp_width = 0;
  int64_t context = 0;     // tokens of a text
  int64_t vocabulary = 0;  // rows of the embedding
  int64_t token_types = 0;
  bool causal = true;
  bool norm_first = true;       // before attention and MLP, and once at the end; else after each
  bool embedding_norm = false;  // after the embeddings
  bool rms_norm = false;
  double norm_epsilon = 1e-5;
  Positions positions = Positions::kLearned;
  spec::RopeSpec rope;
  bool bounded = false;  // there are no positions beyond the context
  std::string activation;
  bool gated = false;  // down(activation(gate(x)) * up(x)) instead of down(activation(up(x)))
  bool qkv_bias = true, out_bias = true, mlp_bias = true;
  bool fused_qkv = false;  // one matrix for queries, keys and values
  bool transposed = true;  // weights are [out, in]
  bool qk_norm = false;    // RMS norm of each head's queries and keys
  int64_t window = 0, window_from = 0;
  bool tied = true;
  bool scaled_residuals = false;  // first weights of projections into the residual stream
  bool pooler = false;            // kText, kPooled: dense and tanh after pooling
  std::string pool = "last";
  bool normalize = false;   // kPooled: rows of length 1
  bool head_dense = false;  // kText: dense and relu before the classes
  bool head_bias = false;   // kText
  double dropout = 0;
  Head head = Head::kLanguageModel;
  int64_t outputs = 0;
};

// Parts of parameter names. A layer's parameters are <body><layer>N.<part>.weight.
struct TransformerNames {
  std::string body;  // "transformer."
  std::string tokens, positions, token_types, embedding_norm;
  std::string layer;  // "h."
  std::string attention_norm, qkv, query, key, value, out, query_norm, key_norm;
  std::string mlp_norm, gate, up, down;
  std::string final_norm, pooler;
  // Of the heads, without the body.
  std::string language_model = "lm_head", token_head, text_dense, text_head;
};

// `style` is one of spec::kTransformerStyles.
const TransformerNames& NamesOfStyle(const std::string& style);

// Fills in every size that follows from others or from the data; kInvalidArgument names the field
// that does not fit. `data_vocabulary` and `data_context` may be 0: not known.
Result<spec::ModelSpec> ResolveTransformer(const spec::ModelSpec& model, int64_t data_vocabulary,
                                           int64_t data_context);

// Of a resolved spec. kInvalidArgument names the field of the spec that the style cannot have, or
// the output that the model cannot give.
Result<TransformerConfig> MakeTransformerConfig(const spec::ModelSpec& model, int64_t outputs,
                                                bool per_token);

}  // namespace lepton::nn
