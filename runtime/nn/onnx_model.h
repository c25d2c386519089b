// arch onnx: a model that came as ONNX, part of a program's graph like any other. Its weights are
// parameters under their own names; its norms keep the statistics that they came with. What the
// data gives by name (model_list.h) becomes what the model's inputs take:
//   x            split by columns among the model's inputs, in their order, each row as one element
//   pixels       the model's one input of [batch, channels, height, width]
//   tokens       input_ids; token_types: token_type_ids; mask: attention_mask, 1 for a token,
//                or key_padding_mask, 1 for padding
// Its first floating output gives the logits. Matrix products stay f32 with precision
// bf16; with int8 those with weights are quantised (int8_products.h).
#pragma once

#include "runtime/nn/model_list.h"

namespace lepton::nn {

// kInvalidArgument or kFailedPrecondition: the model does not take such data, gives another number
// of outputs, or has a node that cannot be computed with an open batch; the message says which.
Result<Signature> OnnxSignature(const spec::ModelSpec& model, const DataShape& data);
Result<graph::ValueId> BuildOnnx(ModelBuilder& builder, const Signature& signature,
                                 const spec::ModelSpec& model,
                                 std::span<const graph::ValueId> inputs);

// The most tokens of a text for which a model of texts has places; 0: none are counted. Errors as
// of OnnxSignature.
Result<int64_t> OnnxContext(const spec::ModelSpec& model);

// What a model takes and gives, as far as its file says.
struct OnnxFacts {
  DataShape::Kind kind = DataShape::Kind::kFeatures;
  DataShape data;       // what is known of it; outputs too
  bool trains = false;  // every weight gets a gradient; else `reason` names the op without one
  std::string reason;
  double bytes = 0;  // of all values together, for two examples, texts of 32 tokens
};
Result<OnnxFacts> ExamineOnnx(const spec::ModelSpec& model);

}  // namespace lepton::nn
