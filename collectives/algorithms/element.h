// Elements as stored and as reduced: 16-bit floats are widened to float32 to be added.
// Internal linkage throughout, since files for different instruction sets include this.
#pragma once

#include <stddef.h>
#include <stdint.h>

// clang 14, which fuzzes, has _Float16 for CPUs alone that compute with it.
#if defined(__clang__) && __clang_major__ < 15 && defined(__x86_64__)
#define LEPTON_NO_FLOAT16
#include <immintrin.h>
#endif

namespace lepton::collectives {
namespace {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

template <typename To, typename From>
inline To BitCast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  __builtin_memcpy(&to, &from, sizeof(to));
  return to;
}

inline float Load(float x) {
  return x;
}
inline int32_t Load(int32_t x) {
  return x;
}
inline int64_t Load(int64_t x) {
  return x;
}
inline uint8_t Load(uint8_t x) {
  return x;
}
inline float Load(BFloat16 x) {
  return BitCast<float>(uint32_t{x.bits} << 16);
}
#ifdef LEPTON_NO_FLOAT16
__attribute__((target("f16c"))) inline float Load(Float16 x) {
  return _cvtsh_ss(x.bits);
}
#else
inline float Load(Float16 x) {
  return static_cast<float>(BitCast<_Float16>(x.bits));
}
#endif

inline void Store(float* to, float x) {
  *to = x;
}
inline void Store(int32_t* to, int32_t x) {
  *to = x;
}
inline void Store(int64_t* to, int64_t x) {
  *to = x;
}
inline void Store(uint8_t* to, uint8_t x) {
  *to = x;
}
inline void Store(int32_t* to, int64_t x) {
  *to = static_cast<int32_t>(x);
}
inline void Store(uint8_t* to, int64_t x) {
  *to = static_cast<uint8_t>(x);
}
inline void Store(BFloat16* to, float x) {
  uint32_t bits = BitCast<uint32_t>(x);
  uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  uint32_t quiet = (bits >> 16) | 0x40u;
  to->bits = static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}
#ifdef LEPTON_NO_FLOAT16
__attribute__((target("f16c"))) inline void Store(Float16* to, float x) {
  to->bits = _cvtss_sh(x, _MM_FROUND_TO_NEAREST_INT);
}
#else
inline void Store(Float16* to, float x) {
  to->bits = BitCast<uint16_t>(static_cast<_Float16>(x));
}
#endif

}  // namespace
}  // namespace lepton::collectives
