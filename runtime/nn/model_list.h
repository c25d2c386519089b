// The one list of architectures, and how data meets them. To add one: README.md.
// Threads: immutable.
#pragma once

#include "runtime/nn/model_builder.h"

namespace lepton::nn {

// What the data looks like to a model.
struct DataShape {
  enum class Kind : uint8_t { kFeatures, kImages, kTokens };
  Kind kind = Kind::kFeatures;
  int64_t features = 0;                         // kFeatures
  int64_t channels = 0, height = 0, width = 0;  // kImages
  int64_t vocabulary = 0;                       // kTokens: ids are in [0, vocabulary)
  int64_t context = 0;                          // kTokens: the longest row
  int64_t outputs = 0;     // classes, or values; for next_token whatever: the vocabulary counts
  bool per_token = false;  // next_token, or a label per token
};

// The spec with every size that it leaves to the data (0) filled in: what is stored with the
// weights, and what programs are built from. A resolved spec stays as it is, so that smaller
// vocabularies and shorter texts may follow. kInvalidArgument names the field that does not fit.
Result<spec::ModelSpec> ResolveModel(const spec::ModelSpec& model, const DataShape& data);

// Outputs of a model with head "none": how wide its last hidden state is.
int64_t FeatureWidth(const spec::ModelSpec& model);

// The inputs that model.arch takes of such data, by name:
//   x            f32 [batch, features]
//   pixels       f32 [batch, channels, height, width], normalised
//   tokens       i32 [batch, sequence], padded with 0 at the end
//   mask         f32 [batch, sequence]: 0 for a token, -1e9 for padding
//   token_types  i32 [batch, sequence]
// A language model takes tokens alone. Its outputs are its vocabulary, which may be larger than the
// data's. kInvalidArgument: the data does not fit. `model` need not be resolved.
Result<Signature> MakeSignature(const spec::ModelSpec& model, const DataShape& data);

// The signature's inputs -> logits, by model.arch. kInvalidArgument names the field.
// `model` is resolved.
Result<graph::ValueId> BuildModel(ModelBuilder& builder, const Signature& signature,
                                  const spec::ModelSpec& model,
                                  std::span<const graph::ValueId> inputs);

}  // namespace lepton::nn
