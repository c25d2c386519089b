// What a model takes and says, and a batch of it.
// Threads: plain values.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/tensor/tensor_view.h"

namespace lepton::nn {

// One input. Its type's first extent is kBatch; kSequence stands for the length of the texts of a
// batch, which is the same for all inputs that have it.
struct InputSpec {
  std::string name;  // "x", "pixels", "tokens", "mask", "token_types"
  TensorType type;
  int64_t limit = 0;  // i32: ids are in [0, limit); 0: not checked
};

struct Signature {
  std::vector<InputSpec> inputs;
  int64_t outputs = 0;     // classes for cross_entropy; 1 for binary_cross_entropy; targets for mse
  bool per_token = false;  // logits [batch, sequence, outputs] and a target for each token

  // x f32 [batch, features] -> [batch, outputs].
  static Signature Features(int64_t features, int64_t outputs) {
    return {{{"x", {DType::kF32, {Shape::kBatch, features}}}}, outputs};
  }
};

// Examples as the model takes them: one view per input of the signature, with concrete extents.
// Borrows.
struct Batch {
  std::vector<TensorView> inputs;

  int64_t rows() const { return inputs.empty() ? 0 : inputs.front().shape()[0]; }
  std::vector<TensorType> types() const;
  // Rows of features: x is [rows, features].
  static Batch Features(std::span<const float> x, int64_t features);
};

// The smallest there can be, of types alone: one row, of one token where there are texts.
Batch EmptyRow(const Signature& signature);

// kInvalidArgument names the input that does not fit, or an id that is out of range.
Status CheckBatch(const Signature& signature, const Batch& batch);
// Predictions that a batch asks for: its rows, or all their tokens.
int64_t Predictions(const Signature& signature, const Batch& batch);

}  // namespace lepton::nn
