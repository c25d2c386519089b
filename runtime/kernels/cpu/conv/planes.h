// Images with a border of zeros, for convolutions of stride 1. A channel's plane has `width` numbers
// a line, which is enough for every tap of every output pixel to find something: then what a tap
// sees of all pixels is one stretch of memory, at a distance that belongs to the tap. Output pixel
// (y, x) is at position y * width + x; positions with x >= out_w are of no pixel.
// Threads: plain values.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/kernels/cpu/conv/conv_rows.h"

namespace lepton::kernels::conv {

class Planes {
 public:
  // Strides and divisors must be 1.
  Planes(const Axis& h, const Axis& w) : h_(h), w_(w), width_(w.out + (w.taps - 1) * w.dilation) {
    for (int64_t y = 0; y < h.taps; ++y) {
      for (int64_t x = 0; x < w.taps; ++x) {
        shifts_.push_back(y * h.dilation * width_ + x * w.dilation);
      }
    }
  }

  int64_t width() const { return width_; }
  int64_t out_w() const { return w_.out; }
  int64_t out_h() const { return h_.out; }
  // Positions from an output pixel to what its taps see.
  const std::vector<int64_t>& shifts() const { return shifts_; }
  // From the first pixel of `lines` output lines to the last.
  int64_t Positions(int64_t lines) const { return (lines - 1) * width_ + w_.out; }
  // Numbers between channels so that `positions` from the first on can be read by every tap: whole
  // cache lines of `element` bytes, an odd number of them, or channels would share few of L1's sets.
  int64_t Pitch(int64_t positions, int64_t element) const {
    const int64_t of_line = 64 / element;
    const int64_t lines = (positions + shifts_.back() + of_line - 1) / of_line;
    return (lines | 1) * of_line;
  }

  // What output lines [first, first + lines) see, of one channel, as `Number`; the rest of the
  // pitch is 0. put(line of the image, to): writes the image's columns [skip(), skip() + columns()).
  template <typename Number, typename Put>
  void Fill(int64_t first, int64_t lines, int64_t pitch, Number* to, const Put& put) const {
    Number* const end = to + pitch;
    const int64_t seen = lines + (h_.taps - 1) * h_.dilation;
    const int64_t begin = w_.before > 0 ? w_.before : 0;
    for (int64_t line = 0; line < seen; ++line, to += width_) {
      const int64_t source = first + line - h_.before;
      if (source < 0 || source >= h_.in) {
        Zero(to, to + width_);
        continue;
      }
      Zero(to, to + begin);
      put(source, to + begin);
      Zero(to + begin + columns(), to + width_);
    }
    Zero(to, end);
  }
  int64_t skip() const { return w_.before < 0 ? -w_.before : 0; }
  int64_t columns() const {
    const int64_t room = width_ - (w_.before > 0 ? w_.before : 0);
    return std::max<int64_t>(0, std::min(w_.in - skip(), room));
  }

 private:
  template <typename Number>
  static void Zero(Number* begin, Number* end) {
    if (begin < end) std::memset(begin, 0, (end - begin) * sizeof(Number));
  }

  const Axis h_, w_;
  const int64_t width_;
  std::vector<int64_t> shifts_;
};

}  // namespace lepton::kernels::conv
