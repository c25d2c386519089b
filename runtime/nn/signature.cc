#include "runtime/nn/signature.h"

namespace lepton::nn {
namespace {

// kSequence is bound by the first input that has it.
bool Fits(const Shape& declared, const Shape& given, int64_t rows, int64_t& sequence) {
  if (declared.rank() != given.rank()) return false;
  for (int axis = 0; axis < declared.rank(); ++axis) {
    int64_t wanted = declared[axis];
    if (wanted == Shape::kBatch) wanted = rows;
    if (wanted == Shape::kSequence) {
      if (sequence == 0) sequence = given[axis];
      wanted = sequence;
    }
    if (given[axis] != wanted || wanted < 1) return false;
  }
  return true;
}

Status CheckIds(const InputSpec& wanted, const TensorView& given) {
  if (wanted.limit == 0 || wanted.type.dtype != DType::kI32) return Status::Ok();
  for (const int32_t id : given.span<const int32_t>()) {
    if (id < 0 || id >= wanted.limit) {
      return InvalidArgument(wanted.name + ": " + std::to_string(id) +
                             " is out of range: must be in 0.." + std::to_string(wanted.limit - 1));
    }
  }
  return Status::Ok();
}

}  // namespace

std::vector<TensorType> Batch::types() const {
  std::vector<TensorType> types;
  for (const TensorView& input : inputs) types.push_back(input.type);
  return types;
}

Batch EmptyRow(const Signature& signature) {
  Batch batch;
  for (const InputSpec& input : signature.inputs) {
    const Shape one = input.type.shape.WithBatch(/*batch=*/1, /*sequence=*/1);
    batch.inputs.push_back({nullptr, {input.type.dtype, one}});
  }
  return batch;
}

Batch Batch::Features(std::span<const float> x, int64_t features) {
  const auto rows = static_cast<int64_t>(x.size()) / features;
  // Kernels read inputs through the same untyped pointers that they write outputs through.
  return {{{const_cast<float*>(x.data()), {DType::kF32, {rows, features}}}}};
}

Status CheckBatch(const Signature& signature, const Batch& batch) {
  if (batch.inputs.size() != signature.inputs.size()) {
    return InvalidArgument("batch: has " + std::to_string(batch.inputs.size()) +
                           " inputs; must have " + std::to_string(signature.inputs.size()));
  }
  int64_t sequence = 0;
  for (size_t i = 0; i < batch.inputs.size(); ++i) {
    const InputSpec& wanted = signature.inputs[i];
    const TensorType& given = batch.inputs[i].type;
    if (given.dtype != wanted.type.dtype ||
        !Fits(wanted.type.shape, given.shape, batch.rows(), sequence)) {
      return InvalidArgument(wanted.name + ": is " + given.ToString() + "; must be " +
                             wanted.type.ToString());
    }
    LEPTON_RETURN_IF_ERROR(CheckIds(wanted, batch.inputs[i]));
  }
  return Status::Ok();
}

int64_t Predictions(const Signature& signature, const Batch& batch) {
  if (!signature.per_token) return batch.rows();
  const Shape& tokens = batch.inputs.front().shape();
  return tokens[0] * tokens[1];
}

}  // namespace lepton::nn
