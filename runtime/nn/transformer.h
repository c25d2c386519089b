// The one transformer behind all language models: decoder or encoder, in the parts that its config
// has. Inputs, by the signature's names: tokens i32 [batch, sequence]; mask f32 [batch, sequence],
// 0 for a token and -1e9 for padding; token_types i32 [batch, sequence].
// The attention's probabilities have no dropout of their own: it acts on embeddings, on what
// attention and MLP add, and before a classification head.
#pragma once

#include "runtime/nn/model_builder.h"
#include "runtime/nn/transformer_config.h"

namespace lepton::nn {

// The inputs that the model takes. kInvalidArgument: a resolved spec that cannot be built.
Result<Signature> TransformerSignature(const spec::ModelSpec& model, int64_t outputs,
                                       bool per_token);

// Logits [batch, sequence, outputs] or [batch, outputs]. `model` is resolved.
Result<graph::ValueId> BuildTransformer(ModelBuilder& builder, const Signature& signature,
                                        const spec::ModelSpec& model,
                                        std::span<const graph::ValueId> inputs);
// The same of parts that no style has together; tests build with it.
Result<graph::ValueId> BuildTransformer(ModelBuilder& builder, const TransformerConfig& config,
                                        const TransformerNames& names, const Signature& signature,
                                        std::span<const graph::ValueId> inputs);

// A language model that goes on from what a cache holds (runtime/ops/cached_attention.h).
struct DecoderInputs {
  graph::ValueId tokens = graph::kNoValue;     // i32 [batch, sequence]
  graph::ValueId positions = graph::kNoValue;  // i32 [batch, sequence]: where the tokens stand
  graph::ValueId mask = graph::kNoValue;       // f32 [batch, sequence]; padding stands behind
  graph::ValueId slots = graph::kNoValue;      // i32 [batch]
  graph::ValueId lengths = graph::kNoValue;    // i32 [batch]
  std::vector<graph::ValueId> caches;          // by layer: [slots, elements]
  int64_t capacity = 0;
};
// Logits [batch, vocabulary] of what follows each text's last token, with the parameters, in the
// same order, and the bits of BuildTransformer. kInvalidArgument for what is no language model.
Result<graph::ValueId> BuildDecoder(ModelBuilder& builder, const TransformerConfig& config,
                                    const TransformerNames& names, const DecoderInputs& inputs);

// The layers alone, and the norm after the last if norms come first: x [batch, rows, width] ->
// [batch, rows, width]. `mask` may be kNoValue.
Result<graph::ValueId> BuildTransformerLayers(ModelBuilder& builder,
                                              const TransformerConfig& config,
                                              const TransformerNames& names, graph::ValueId x,
                                              graph::ValueId mask = graph::kNoValue);

}  // namespace lepton::nn
