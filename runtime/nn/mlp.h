// The multi-layer perceptron. For each hidden width: linear, then layer norm if asked, then the
// activation, then dropout; a linear layer gives the logits. Parameters: layers.N.weight [in, out],
// layers.N.bias [out], and layers.N.norm.weight, layers.N.norm.bias [out] with layer norm.
#pragma once

#include "runtime/nn/model_builder.h"

namespace lepton::nn {

// kInvalidArgument names the field of the model spec.
Result<graph::ValueId> BuildMlp(ModelBuilder& builder, const Signature& signature,
                                const spec::ModelSpec& model,
                                std::span<const graph::ValueId> inputs);

}  // namespace lepton::nn
