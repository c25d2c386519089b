// Element types. Threads: plain values.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace lepton {

enum class DType : uint8_t { kF32, kBF16, kI32 };

size_t DTypeSize(DType dtype);            // bytes of one element
std::string_view DTypeName(DType dtype);  // "f32", "bf16", "i32"

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

}  // namespace lepton
