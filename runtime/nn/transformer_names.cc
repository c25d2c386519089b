#include <map>

#include "runtime/nn/transformer_config.h"

namespace lepton::nn {
namespace {

TransformerNames Gpt2Names() {
  TransformerNames n;
  n.body = "transformer.";
  n.tokens = "wte";
  n.positions = "wpe";
  n.layer = "h.";
  n.attention_norm = "ln_1";
  n.qkv = "attn.c_attn";
  n.out = "attn.c_proj";
  n.mlp_norm = "ln_2";
  n.up = "mlp.c_fc";
  n.down = "mlp.c_proj";
  n.final_norm = "ln_f";
  n.token_head = "classifier";
  n.text_head = "score";
  return n;
}

TransformerNames LlamaNames() {
  TransformerNames n;
  n.body = "model.";
  n.tokens = "embed_tokens";
  n.layer = "layers.";
  n.attention_norm = "input_layernorm";
  n.query = "self_attn.q_proj";
  n.key = "self_attn.k_proj";
  n.value = "self_attn.v_proj";
  n.out = "self_attn.o_proj";
  n.query_norm = "self_attn.q_norm";
  n.key_norm = "self_attn.k_norm";
  n.mlp_norm = "post_attention_layernorm";
  n.gate = "mlp.gate_proj";
  n.up = "mlp.up_proj";
  n.down = "mlp.down_proj";
  n.final_norm = "norm";
  n.token_head = "score";
  n.text_head = "score";
  return n;
}

TransformerNames BertNames() {
  TransformerNames n;
  n.body = "bert.";
  n.tokens = "embeddings.word_embeddings";
  n.positions = "embeddings.position_embeddings";
  n.token_types = "embeddings.token_type_embeddings";
  n.embedding_norm = "embeddings.LayerNorm";
  n.layer = "encoder.layer.";
  n.attention_norm = "attention.output.LayerNorm";
  n.query = "attention.self.query";
  n.key = "attention.self.key";
  n.value = "attention.self.value";
  n.out = "attention.output.dense";
  n.mlp_norm = "output.LayerNorm";
  n.up = "intermediate.dense";
  n.down = "output.dense";
  n.pooler = "pooler.dense";
  n.token_head = "classifier";
  n.text_head = "classifier";
  return n;
}

TransformerNames DistilbertNames() {
  TransformerNames n;
  n.body = "distilbert.";
  n.tokens = "embeddings.word_embeddings";
  n.positions = "embeddings.position_embeddings";
  n.embedding_norm = "embeddings.LayerNorm";
  n.layer = "transformer.layer.";
  n.attention_norm = "sa_layer_norm";
  n.query = "attention.q_lin";
  n.key = "attention.k_lin";
  n.value = "attention.v_lin";
  n.out = "attention.out_lin";
  n.mlp_norm = "output_layer_norm";
  n.up = "ffn.lin1";
  n.down = "ffn.lin2";
  n.token_head = "classifier";
  n.text_dense = "pre_classifier";
  n.text_head = "classifier";
  return n;
}

}  // namespace

const TransformerNames& NamesOfStyle(const std::string& style) {
  static const auto* const names = new std::map<std::string, TransformerNames>{
      {"gpt2", Gpt2Names()},
      {"llama", LlamaNames()},
      {"mistral", LlamaNames()},
      {"qwen2", LlamaNames()},
      {"qwen3", LlamaNames()},
      {"bert", BertNames()},
      {"distilbert", DistilbertNames()},
  };
  return names->at(style);
}

}  // namespace lepton::nn
