// Copies past the caches, for results that nobody reads soon. Pure; before anybody else reads the
// result, StreamFence on the thread that copied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace lepton::collectives {

#if defined(__SSE2__)

inline void StreamCopy(void* to, const void* from, size_t bytes) {
  char* out = static_cast<char*>(to);
  const char* in = static_cast<const char*>(from);
  const size_t head = (64 - reinterpret_cast<uintptr_t>(out) % 64) % 64;
  if (bytes < head + 64) {
    std::memcpy(out, in, bytes);
    return;
  }
  std::memcpy(out, in, head);
  size_t at = head;
  for (; at + 64 <= bytes; at += 64) {  // a cache line, whole
    __m128i line[4];
    for (int i = 0; i < 4; ++i) {
      line[i] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + at) + i);
    }
    for (int i = 0; i < 4; ++i) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(out + at) + i, line[i]);
    }
  }
  std::memcpy(out + at, in + at, bytes - at);
}

inline void StreamFence() {
  _mm_sfence();
}

#else

inline void StreamCopy(void* to, const void* from, size_t bytes) {
  std::memcpy(to, from, bytes);
}
inline void StreamFence() {}

#endif

}  // namespace lepton::collectives
