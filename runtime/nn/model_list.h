// The one list of architectures. To add one: README.md.
// Threads: immutable.
#pragma once

#include "runtime/nn/model_builder.h"

namespace lepton::nn {

// x [batch, features] -> logits [batch, outputs], by model.arch. kInvalidArgument names the field.
Result<graph::ValueId> BuildModel(ModelBuilder& builder, const Signature& signature,
                                  const spec::ModelSpec& model, graph::ValueId x);

}  // namespace lepton::nn
