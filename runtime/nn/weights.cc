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

Result<std::shared_ptr<StoredWeights>> StoredWeights::Make(
    const SourceTensors& tensors, const std::vector<ParameterView>& parameters) {
  std::shared_ptr<StoredWeights> weights(new StoredWeights());
  for (const ParameterView& parameter : parameters) {
    LEPTON_ASSIGN_OR_RETURN(const SourceTensor* const tensor, Find(tensors, parameter));
    weights->tensors_.push_back(*tensor);
  }
  LEPTON_RETURN_IF_ERROR(Superfluous(tensors, parameters));
  weights->copies_.resize(parameters.size());
  return weights;
}

StoredWeights::StoredWeights(const std::vector<const float*>& places) : copies_(places.size()) {
  for (const float* place : places) tensors_.push_back({DType::kF32, {}, place});
}

const SourceTensor* StoredWeights::Halves(size_t parameter) const {
  const SourceTensor& tensor = tensors_[parameter];
  const bool aligned = reinterpret_cast<uintptr_t>(tensor.data) % sizeof(uint16_t) == 0;
  return tensor.dtype != DType::kF32 && aligned ? &tensor : nullptr;
}

std::shared_ptr<const float> StoredWeights::Floats(size_t parameter) {
  const SourceTensor& tensor = tensors_[parameter];
  const bool aligned = reinterpret_cast<uintptr_t>(tensor.data) % alignof(float) == 0;
  if (tensor.dtype == DType::kF32 && aligned) {
    return {std::shared_ptr<void>(), static_cast<const float*>(tensor.data)};  // nobody's
  }
  std::shared_ptr<Buffer> copy = copies_[parameter].lock();
  if (copy == nullptr) {
    copy = std::make_shared<Buffer>(static_cast<size_t>(tensor.elements()) * sizeof(float));
    ToFloats(tensor, copy->as<float>());
    copies_[parameter] = copy;
    ++copies_made_;
    most_copied_bytes_ = std::max(most_copied_bytes_, copied_bytes());
  }
  return {copy, copy->as<float>()};
}

size_t StoredWeights::copied_bytes() const {
  size_t bytes = 0;
  for (const std::weak_ptr<Buffer>& known : copies_) {
    if (const std::shared_ptr<Buffer> copy = known.lock()) bytes += copy->size();
  }
  return bytes;
}

}  // namespace lepton::nn
