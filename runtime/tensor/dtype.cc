#include "runtime/tensor/dtype.h"

#include <cmath>
#include <limits>

namespace lepton {

size_t DTypeSize(DType dtype) {
  switch (dtype) {
    case DType::kF64:
    case DType::kI64:
    case DType::kU64:
      return 8;
    case DType::kF32:
    case DType::kI32:
    case DType::kU32:
      return 4;
    case DType::kBF16:
    case DType::kF16:
    case DType::kI16:
    case DType::kU16:
      return 2;
    case DType::kI8:
    case DType::kU8:
    case DType::kBool:
      return 1;
  }
  return 0;
}

std::string_view DTypeName(DType dtype) {
  constexpr std::string_view kNames[kDTypes] = {"f32", "bf16", "i32", "f64", "f16", "i8",  "i16",
                                                "i64", "u8",   "u16", "u32", "u64", "bool"};
  const auto index = static_cast<size_t>(dtype);
  return index < kDTypes ? kNames[index] : "unknown";
}

bool IsFloating(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF64 ||
         dtype == DType::kF16;
}

float F16::ToFloat(F16 value) {
  const int exponent = (value.bits >> 10) & 0x1f;
  const int fraction = value.bits & 0x3ff;
  const float sign = (value.bits & 0x8000) != 0 ? -1.0f : 1.0f;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(fraction), -24);
  if (exponent < 31) return sign * std::ldexp(static_cast<float>(fraction | 0x400), exponent - 25);
  return fraction != 0 ? std::numeric_limits<float>::quiet_NaN()
                       : sign * std::numeric_limits<float>::infinity();
}

F16 F16::FromFloat(float value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const float magnitude = std::fabs(value);
  if (std::isnan(value)) return {static_cast<uint16_t>(sign | 0x7e00)};
  if (magnitude >= 65520.0f) return {static_cast<uint16_t>(sign | 0x7c00)};
  // In units of the last place of the result: 2^-24 for what is below 2^-14.
  int exponent = -14;
  if (magnitude >= std::ldexp(1.0f, -14)) exponent = std::ilogb(magnitude);
  const auto units = static_cast<uint32_t>(std::nearbyint(std::ldexp(magnitude, 10 - exponent)));
  // A carry out of the fraction adds one to the exponent, as it must.
  const uint32_t bits = (static_cast<uint32_t>(exponent + 14) << 10) + units;
  return {static_cast<uint16_t>(sign | bits)};
}

}  // namespace lepton
