// Residual networks (He et al. 2015), version 1.5: the stride of a bottleneck is in its 3x3. Names
// of parameters are those of the public models: resnet.embedder..,
// resnet.encoder.stages.S.layers.L.., classifier.1. Statistics of the batch norms:
// <norm>.running_mean, <norm>.running_var. Input: pixels f32 [batch, channels, height, width],
// normalised.
#pragma once

#include "runtime/nn/model_builder.h"

namespace lepton::nn {

// `channels`, `height`, `width`: the data's, or 0. kInvalidArgument names the field.
Result<spec::ModelSpec> ResolveResnet(const spec::ModelSpec& model, int64_t channels,
                                      int64_t height, int64_t width);

// Logits [batch, outputs]. `model` is resolved.
Result<graph::ValueId> BuildResnet(ModelBuilder& builder, const Signature& signature,
                                   const spec::ModelSpec& model,
                                   std::span<const graph::ValueId> inputs);

// Shared with vit: sizes of images that the spec leaves open are the data's; others must be equal.
Status ResolveImage(int64_t channels, int64_t height, int64_t width, spec::ImageSpec& image);
// pixels f32 [batch, channels, height, width] -> [batch, outputs].
Signature ImageSignature(const spec::ImageSpec& image, int64_t outputs);

}  // namespace lepton::nn
