// From a DType to a C++ type: VisitType(dtype, [&]<typename T>(TypeTag<T>) {...}), and how its
// elements take part in arithmetic: f16 and bf16 as float, the others as themselves.
// Threads: pure functions.
#pragma once

#include <type_traits>
#include <utility>

#include "runtime/tensor/dtype.h"

namespace lepton::kernels::general {

template <typename T>
struct TypeTag {
  using Type = T;
};

template <typename Visitor>
void VisitType(DType dtype, const Visitor& visitor) {
  switch (dtype) {
    case DType::kF32:
      return visitor(TypeTag<float>());
    case DType::kBF16:
      return visitor(TypeTag<BF16>());
    case DType::kI32:
      return visitor(TypeTag<int32_t>());
    case DType::kF64:
      return visitor(TypeTag<double>());
    case DType::kF16:
      return visitor(TypeTag<F16>());
    case DType::kI8:
      return visitor(TypeTag<int8_t>());
    case DType::kI16:
      return visitor(TypeTag<int16_t>());
    case DType::kI64:
      return visitor(TypeTag<int64_t>());
    case DType::kU8:
      return visitor(TypeTag<uint8_t>());
    case DType::kU16:
      return visitor(TypeTag<uint16_t>());
    case DType::kU32:
      return visitor(TypeTag<uint32_t>());
    case DType::kU64:
      return visitor(TypeTag<uint64_t>());
    case DType::kBool:
      return visitor(TypeTag<bool>());
  }
}

// By the size of an element alone, for copies: the types of 1, 2, 4 and 8 bytes.
template <typename Visitor>
void VisitSize(DType dtype, const Visitor& visitor) {
  switch (DTypeSize(dtype)) {
    case 1:
      return visitor(TypeTag<uint8_t>());
    case 2:
      return visitor(TypeTag<uint16_t>());
    case 4:
      return visitor(TypeTag<uint32_t>());
    default:
      return visitor(TypeTag<uint64_t>());
  }
}

template <typename T>
inline constexpr bool kHalf = std::is_same_v<T, F16> || std::is_same_v<T, BF16>;
template <typename T>
inline constexpr bool kFloating = std::is_floating_point_v<T> || kHalf<T>;

template <typename T>
auto Load(T value) {
  if constexpr (kHalf<T>) {
    return T::ToFloat(value);
  } else {
    return value;
  }
}

template <typename T>
using Arithmetic = decltype(Load(std::declval<T>()));

// What sums are kept in: double, or 64 bits that wrap.
template <typename T>
using Accumulator = std::conditional_t<kFloating<T>, double,
                                       std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>>;

template <typename T, typename Value>
T Store(Value value) {
  if constexpr (kHalf<T>) {
    return T::FromFloat(static_cast<float>(value));
  } else {
    return static_cast<T>(value);
  }
}

}  // namespace lepton::kernels::general
