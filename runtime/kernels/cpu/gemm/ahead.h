// Memory that a thread is about to need, fetched a few lines at a time between products: parts of
// rows lie so far apart that no prefetcher of the CPU follows them, and are as many cache misses.
// Threads: plain value, one a thread.
#pragma once

#include <cstdint>

namespace lepton::kernels::gemm {

class Ahead {
 public:
  void Clear() { rectangles_ = next_ = bytes_ = 0; }
  // `rows` rows of `bytes` bytes, their beginnings `pitch` bytes apart. Nothing happens where it is
  // more, with what was added before, than stays in an L2 beside the work at hand.
  void Add(const void* first, int64_t rows, int64_t bytes, int64_t pitch) {
    bytes_ += rows * bytes;
    if (bytes_ > kMostBytes || rectangles_ == kMost || rows == 0) return;
    places_[rectangles_++] = {static_cast<const char*>(first), rows, bytes, pitch};
  }
  // The next so many rows.
  void Fetch(int64_t rows) {
    constexpr int64_t kLine = 64;
    for (; rows > 0 && next_ < rectangles_; --rows) {
      Rectangle& from = places_[next_];
      for (int64_t byte = 0; byte < from.bytes; byte += kLine) {
        __builtin_prefetch(from.first + byte);
      }
      from.first += from.pitch;
      if (--from.rows == 0) ++next_;
    }
  }

 private:
  struct Rectangle {
    const char* first;
    int64_t rows, bytes, pitch;
  };
  static constexpr int kMost = 8;
  static constexpr int64_t kMostBytes = 1 << 19;
  Rectangle places_[kMost];
  int rectangles_ = 0, next_ = 0;
  int64_t bytes_ = 0;
};

}  // namespace lepton::kernels::gemm
