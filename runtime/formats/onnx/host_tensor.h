// Tensors in host memory: initializers, inputs and results of an imported model.
// Ownership: a tensor owns its memory. Threads: plain values.
#pragma once

#include <vector>

#include "runtime/tensor/buffer.h"
#include "runtime/tensor/tensor_view.h"

namespace lepton::onnx {

struct HostTensor {
  HostTensor() = default;
  explicit HostTensor(TensorType tensor_type) : type(std::move(tensor_type)), data(type.bytes()) {}
  HostTensor(TensorType tensor_type, const void* bytes);

  TensorView view() { return {data.data(), type}; }
  HostTensor Copy() const { return {type, data.data()}; }

  TensorType type;
  Buffer data;
};

// A one-dimensional (or, for a single number, scalar) tensor.
HostTensor TensorOf(const std::vector<int64_t>& numbers);
HostTensor TensorOf(DType dtype, Shape shape, const std::vector<double>& numbers);

// The elements as numbers; a floating tensor's are cut off.
std::vector<int64_t> AsIntegers(const HostTensor& tensor);
std::vector<double> AsDoubles(const HostTensor& tensor);

// What a name stands for in a model: a tensor, a list of them, or nothing (an empty optional).
struct HostValue {
  enum class Kind { kNone, kTensor, kSequence };
  Kind kind = Kind::kNone;
  HostTensor tensor;
  std::vector<HostValue> items;
};

}  // namespace lepton::onnx
