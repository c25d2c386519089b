#include "runtime/tensor/dtype.h"

#include <bit>
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
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000) << 16;
  const uint32_t magnitude = value.bits & 0x7fff;
  if (magnitude > 0x7c00) return std::numeric_limits<float>::quiet_NaN();
  // The same fraction, and an exponent that counts from another one. What is below 2^-14 is a
  // number of 2^-24s, which f32 has as they are.
  uint32_t word = magnitude == 0x7c00 ? 0x7f800000u : (magnitude << 13) + (112u << 23);
  if (magnitude < 0x400) word = std::bit_cast<uint32_t>(static_cast<float>(magnitude) * 0x1p-24f);
  return std::bit_cast<float>(sign | word);
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
