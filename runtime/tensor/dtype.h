// Element types. Threads: plain values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace lepton {

// Training uses the first three; the others are for inference of imported models.
enum class DType : uint8_t {
  kF32,
  kBF16,
  kI32,
  kF64,
  kF16,
  kI8,
  kI16,
  kI64,
  kU8,
  kU16,
  kU32,
  kU64,
  kBool,  // one byte, 0 or 1
};
inline constexpr int kDTypes = 13;

size_t DTypeSize(DType dtype);            // bytes of one element
std::string_view DTypeName(DType dtype);  // "f32", "bf16", "i32", "bool"
bool IsFloating(DType dtype);

// bfloat16: the upper half of an f32.
struct BF16 {
  uint16_t bits = 0;

  static float ToFloat(BF16 value) {
    const uint32_t word = static_cast<uint32_t>(value.bits) << 16;
    float out;
    std::memcpy(&out, &word, sizeof(out));
    return out;
  }
  // Rounds to nearest, ties to even; NaN stays NaN.
  static BF16 FromFloat(float value) {
    uint32_t word;
    std::memcpy(&word, &value, sizeof(word));
    const bool nan = (word & 0x7fffffffu) > 0x7f800000u;
    const uint32_t rounded = word + 0x7fffu + ((word >> 16) & 1u);
    return {static_cast<uint16_t>(nan ? (word >> 16) | 0x40u : rounded >> 16)};
  }
};
static_assert(sizeof(BF16) == 2);

// IEEE 754 binary16. Rounds to nearest, ties to even; too large becomes infinite.
struct F16 {
  uint16_t bits = 0;

  static float ToFloat(F16 value);
  static F16 FromFloat(float value);
};
static_assert(sizeof(F16) == 2);

}  // namespace lepton
