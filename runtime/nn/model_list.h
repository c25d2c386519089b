// The one list of architectures. To add one: README.md.
// Threads: immutable.
#pragma once

#include "runtime/nn/model_builder.h"

namespace lepton::nn {

// The signature's inputs -> logits, by model.arch. kInvalidArgument names the field.
Result<graph::ValueId> BuildModel(ModelBuilder& builder, const Signature& signature,
                                  const spec::ModelSpec& model,
                                  std::span<const graph::ValueId> inputs);

}  // namespace lepton::nn
