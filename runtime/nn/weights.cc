#include "runtime/nn/weights.h"

#include <algorithm>
#include <cstring>
#include <set>

namespace lepton::nn {
namespace {

std::string ShapeText(const std::vector<int64_t>& shape) {
  return Shape(shape).ToString();
}

void ToFloats(const SourceTensor& tensor, float* out) {
  const int64_t count = tensor.elements();
  if (tensor.dtype == DType::kF32) {
    std::memcpy(out, tensor.data, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  const auto* bytes = static_cast<const char*>(tensor.data);
  for (int64_t i = 0; i < count; ++i) {
    uint16_t bits = 0;
    std::memcpy(&bits, bytes + 2 * i, sizeof(bits));
    out[i] = tensor.dtype == DType::kBF16 ? BF16::ToFloat({bits}) : F16::ToFloat({bits});
  }
}

Status CheckType(const std::string& name, const SourceTensor& tensor) {
  if (tensor.dtype == DType::kF32 || tensor.dtype == DType::kF16 || tensor.dtype == DType::kBF16) {
    return Status::Ok();
  }
  return InvalidArgument("parameter " + name + ": type " + std::string(DTypeName(tensor.dtype)) +
                         " is not supported: must be f32, f16 or bf16");
}

// The tensor of a parameter.
Result<const SourceTensor*> Find(const SourceTensors& tensors, const ParameterView& parameter) {
  const auto found = tensors.find(parameter.name);
  if (found == tensors.end()) {
    return InvalidArgument("parameter " + parameter.name + ": the stored model does not have it");
  }
  LEPTON_RETURN_IF_ERROR(CheckType(parameter.name, found->second));
  if (found->second.shape != parameter.shape) {
    return InvalidArgument("parameter " + parameter.name + ": the stored model's shape is " +
                           ShapeText(found->second.shape) + ", this one's " +
                           ShapeText(parameter.shape));
  }
  return &found->second;
}

// A tensor that no parameter takes.
Status Superfluous(const SourceTensors& tensors, const std::vector<ParameterView>& parameters) {
  std::set<std::string_view> known;
  for (const ParameterView& parameter : parameters) known.insert(parameter.name);
  for (const auto& [name, tensor] : tensors) {
    if (known.contains(name)) continue;
    return InvalidArgument("parameter " + name + ": only the stored model has it, with shape " +
                           ShapeText(tensor.shape));
  }
  return Status::Ok();
}

}  // namespace

int64_t SourceTensor::elements() const {
  int64_t count = 1;
  for (const int64_t extent : shape) count *= extent;
  return count;
}

Result<CopiedWeights> CopyWithFreshHead(const SourceTensors& tensors,
                                        const std::vector<ParameterView>& parameters,
                                        std::span<float> weights) {
  CopiedWeights copied;
  for (const ParameterView& parameter : parameters) {
    const Result<const SourceTensor*> tensor = Find(tensors, parameter);
    if (tensor.ok()) {
      ToFloats(**tensor, weights.data() + parameter.offset);
    } else if (parameter.head) {
      copied.fresh.push_back(parameter.name);
    } else {
      return tensor.status();
    }
  }
  return copied;
}

Status CopyWeights(const SourceTensors& tensors, const std::vector<ParameterView>& parameters,
                   std::span<float> weights) {
  for (const ParameterView& parameter : parameters) {
    LEPTON_ASSIGN_OR_RETURN(const SourceTensor* const tensor, Find(tensors, parameter));
    ToFloats(*tensor, weights.data() + parameter.offset);
  }
  return Superfluous(tensors, parameters);
}

Status CheckWeights(const SourceTensors& tensors, const std::vector<ParameterView>& parameters) {
  for (const ParameterView& parameter : parameters) {
    LEPTON_RETURN_IF_ERROR(Find(tensors, parameter).status());
  }
  return Superfluous(tensors, parameters);
}

Result<WeightPointers> WeightPointers::Make(const SourceTensors& tensors,
                                            const std::vector<ParameterView>& parameters) {
  WeightPointers weights;
  for (const ParameterView& parameter : parameters) {
    LEPTON_ASSIGN_OR_RETURN(const SourceTensor* const tensor, Find(tensors, parameter));
    const bool aligned = reinterpret_cast<uintptr_t>(tensor->data) % alignof(float) == 0;
    if (tensor->dtype == DType::kF32 && aligned) {
      weights.pointers_.push_back(static_cast<const float*>(tensor->data));
      continue;
    }
    weights.copies_.emplace_back(static_cast<size_t>(parameter.size) * sizeof(float));
    ToFloats(*tensor, weights.copies_.back().as<float>());
    weights.pointers_.push_back(weights.copies_.back().as<float>());
  }
  LEPTON_RETURN_IF_ERROR(Superfluous(tensors, parameters));
  return weights;
}

size_t WeightPointers::copied_bytes() const {
  size_t bytes = 0;
  for (const Buffer& copy : copies_) bytes += copy.size();
  return bytes;
}

}  // namespace lepton::nn
