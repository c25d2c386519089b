// The vision transformer (Dosovitskiy et al. 2021): patches through a convolution, a class token,
// learned positions, an encoder with the norms first. Names of parameters are those of the public
// models: vit.embeddings.., vit.encoder.layer.N.., vit.layernorm, classifier.
// Input: pixels f32 [batch, channels, height, width], normalised.
#pragma once

#include "runtime/nn/model_builder.h"

namespace lepton::nn {

// `channels`, `height`, `width`: the data's, or 0. kInvalidArgument names the field.
Result<spec::ModelSpec> ResolveVit(const spec::ModelSpec& model, int64_t channels, int64_t height,
                                   int64_t width);

// Logits [batch, outputs]. `model` is resolved.
Result<graph::ValueId> BuildVit(ModelBuilder& builder, const Signature& signature,
                                const spec::ModelSpec& model,
                                std::span<const graph::ValueId> inputs);

}  // namespace lepton::nn
