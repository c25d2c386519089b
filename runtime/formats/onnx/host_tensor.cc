#include "runtime/formats/onnx/host_tensor.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

namespace lepton::onnx {
namespace {

template <typename Out>
Out Read(const void* data, DType dtype, size_t i) {
  switch (dtype) {
    case DType::kF32:
      return static_cast<Out>(static_cast<const float*>(data)[i]);
    case DType::kF64:
      return static_cast<Out>(static_cast<const double*>(data)[i]);
    case DType::kBF16:
      return static_cast<Out>(BF16::ToFloat(static_cast<const BF16*>(data)[i]));
    case DType::kF16:
      return static_cast<Out>(F16::ToFloat(static_cast<const F16*>(data)[i]));
    case DType::kI8:
      return static_cast<Out>(static_cast<const int8_t*>(data)[i]);
    case DType::kI16:
      return static_cast<Out>(static_cast<const int16_t*>(data)[i]);
    case DType::kI32:
      return static_cast<Out>(static_cast<const int32_t*>(data)[i]);
    case DType::kI64:
      return static_cast<Out>(static_cast<const int64_t*>(data)[i]);
    case DType::kU8:
      return static_cast<Out>(static_cast<const uint8_t*>(data)[i]);
    case DType::kU16:
      return static_cast<Out>(static_cast<const uint16_t*>(data)[i]);
    case DType::kU32:
      return static_cast<Out>(static_cast<const uint32_t*>(data)[i]);
    case DType::kU64:
      return static_cast<Out>(static_cast<const uint64_t*>(data)[i]);
    case DType::kBool:
      return static_cast<Out>(static_cast<const uint8_t*>(data)[i] != 0);
  }
  return Out{0};
}

// Integers saturate; NaN becomes 0.
template <typename T>
void Fill(HostTensor& tensor, const std::vector<double>& numbers) {
  for (size_t i = 0; i < numbers.size(); ++i) {
    const double x = numbers[i];
    T& to = tensor.data.as<T>()[i];
    if constexpr (std::is_floating_point_v<T> || std::is_same_v<T, bool>) {
      to = static_cast<T>(x);
    } else {
      using Limits = std::numeric_limits<T>;
      to = std::isnan(x)                                ? T{0}
           : x >= static_cast<double>(Limits::max())    ? Limits::max()
           : x <= static_cast<double>(Limits::lowest()) ? Limits::lowest()
                                                        : static_cast<T>(x);
    }
  }
}

// What fits an integer of 64 bits.
double Bounded(double x) {
  constexpr double kMost = 9.2e18;
  return !(x > -kMost) ? -kMost : x > kMost ? kMost : x;
}

}  // namespace

HostTensor::HostTensor(TensorType tensor_type, const void* bytes)
    : HostTensor(std::move(tensor_type)) {
  if (type.bytes() > 0) std::memcpy(data.data(), bytes, type.bytes());
}

HostTensor TensorOf(const std::vector<int64_t>& numbers) {
  return {{DType::kI64, Shape({static_cast<int64_t>(numbers.size())})}, numbers.data()};
}

HostTensor TensorOf(DType dtype, Shape shape, const std::vector<double>& numbers) {
  HostTensor tensor({dtype, std::move(shape)});
  switch (dtype) {
    case DType::kF32:
      Fill<float>(tensor, numbers);
      break;
    case DType::kF64:
      Fill<double>(tensor, numbers);
      break;
    case DType::kI8:
      Fill<int8_t>(tensor, numbers);
      break;
    case DType::kI16:
      Fill<int16_t>(tensor, numbers);
      break;
    case DType::kI32:
      Fill<int32_t>(tensor, numbers);
      break;
    case DType::kI64:
      Fill<int64_t>(tensor, numbers);
      break;
    case DType::kU8:
      Fill<uint8_t>(tensor, numbers);
      break;
    case DType::kU16:
      Fill<uint16_t>(tensor, numbers);
      break;
    case DType::kU32:
      Fill<uint32_t>(tensor, numbers);
      break;
    case DType::kU64:
      Fill<uint64_t>(tensor, numbers);
      break;
    case DType::kBool:
      Fill<bool>(tensor, numbers);
      break;
    case DType::kBF16:
      for (size_t i = 0; i < numbers.size(); ++i) {
        tensor.data.as<BF16>()[i] = BF16::FromFloat(static_cast<float>(numbers[i]));
      }
      break;
    case DType::kF16:
      for (size_t i = 0; i < numbers.size(); ++i) {
        tensor.data.as<F16>()[i] = F16::FromFloat(static_cast<float>(numbers[i]));
      }
      break;
  }
  return tensor;
}

std::vector<int64_t> AsIntegers(const HostTensor& tensor) {
  std::vector<int64_t> numbers(tensor.type.shape.elements());
  for (size_t i = 0; i < numbers.size(); ++i) {
    numbers[i] =
        IsFloating(tensor.type.dtype)
            ? static_cast<int64_t>(Bounded(Read<double>(tensor.data.data(), tensor.type.dtype, i)))
            : Read<int64_t>(tensor.data.data(), tensor.type.dtype, i);
  }
  return numbers;
}

std::vector<double> AsDoubles(const HostTensor& tensor) {
  std::vector<double> numbers(tensor.type.shape.elements());
  for (size_t i = 0; i < numbers.size(); ++i) {
    numbers[i] = Read<double>(tensor.data.data(), tensor.type.dtype, i);
  }
  return numbers;
}

}  // namespace lepton::onnx
