// Images with a border of zeros, for windows that move by one pixel. A channel's plane has `width`
// numbers a line, which is enough for every tap of every output pixel to find something: then what
// a tap sees of all pixels is one stretch of memory, at a distance that belongs to the tap. Output
// pixel (y, x) is at position y * width + x; positions with x >= out_w are of no pixel.
// Threads: plain values.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "runtime/ops/window.h"

namespace lepton::kernels::conv {

// Along one axis output pixel p and tap i see input p + offsets[i], where there is one.
struct TapLine {
  int64_t in, out;
  std::vector<int64_t> offsets;

  // y from x; of stride 1.
  static TapLine Forward(const ops::WindowAxis& w, int64_t in, int64_t out) {
    TapLine line{in, out, {}};
    for (int64_t tap = 0; tap < w.extent; ++tap) {
      line.offsets.push_back(tap * w.dilation - w.before);
    }
    return line;
  }
  // dx [in] from dy [out], with the taps in reverse: those dx that lie `phase` behind a multiple of
  // the stride, and the taps that meet these, whose numbers `taps` takes.
  static TapLine Backward(const ops::WindowAxis& w, int64_t in, int64_t out, int64_t phase,
                          std::vector<int64_t>& taps) {
    TapLine line{out, (in - phase + w.stride - 1) / w.stride, {}};
    for (int64_t tap = 0; tap < w.extent; ++tap) {
      const int64_t at = phase + tap * w.dilation - (w.Span() - 1 - w.before);
      if (at % w.stride != 0) continue;
      line.offsets.push_back(at / w.stride);
      taps.push_back(tap);
    }
    return line;
  }
};

class Planes {
 public:
  Planes(TapLine h, TapLine w) : h_(std::move(h)), w_(std::move(w)) {
    const auto range = [](const std::vector<int64_t>& offsets, int64_t& low, int64_t& high) {
      if (offsets.empty()) return;
      const auto [least, most] = std::minmax_element(offsets.begin(), offsets.end());
      low = *least;
      high = *most;
    };
    range(h_.offsets, low_h_, high_h_);
    range(w_.offsets, low_w_, high_w_);
    width_ = w_.out + high_w_ - low_w_;
    for (const int64_t y : h_.offsets) {
      for (const int64_t x : w_.offsets) shifts_.push_back((y - low_h_) * width_ + x - low_w_);
    }
    skip_ = std::max<int64_t>(0, low_w_);
    left_ = std::min(width_, std::max<int64_t>(0, -low_w_));
    columns_ = std::max<int64_t>(0, std::min(w_.in - skip_, width_ - left_));
  }

  int64_t width() const { return width_; }
  int64_t out_w() const { return w_.out; }
  int64_t out_h() const { return h_.out; }
  // Positions from an output pixel to what its taps see.
  const std::vector<int64_t>& shifts() const { return shifts_; }
  // From the first pixel of `lines` output lines to the last.
  int64_t Positions(int64_t lines) const { return (lines - 1) * width_ + w_.out; }
  // What is filled for `lines` output lines.
  int64_t Span(int64_t lines) const { return (lines + high_h_ - low_h_) * width_; }
  // Numbers between channels so that `positions` from the first on can be read by every tap: whole
  // cache lines of `element` bytes, an odd number of them, or channels would share few of L1's
  // sets.
  int64_t Pitch(int64_t positions, int64_t element) const {
    const int64_t of_line = 64 / element;
    const int64_t most = (high_h_ - low_h_) * width_ + high_w_ - low_w_;
    const int64_t lines = (positions + most + of_line - 1) / of_line;
    return (lines | 1) * of_line;
  }

  // What output lines [first, first + lines) see, of one channel; the rest of the pitch is 0.
  // put(line, to) writes columns [skip(), skip() + columns()) of a line of the image.
  template <typename Number, typename Put>
  void Fill(int64_t first, int64_t lines, int64_t pitch, Number* to, const Put& put) const {
    Number* const end = to + pitch;
    const int64_t seen = lines + high_h_ - low_h_;
    for (int64_t line = 0; line < seen; ++line, to += width_) {
      const int64_t source = first + line + low_h_;
      if (source < 0 || source >= h_.in) {
        Zero(to, to + width_);
        continue;
      }
      Zero(to, to + left_);
      put(source, to + left_);
      Zero(to + left_ + columns_, to + width_);
    }
    Zero(to, end);
  }
  int64_t skip() const { return skip_; }
  int64_t columns() const { return columns_; }

 private:
  template <typename Number>
  static void Zero(Number* begin, Number* end) {
    if (begin < end) std::memset(begin, 0, (end - begin) * sizeof(Number));
  }

  TapLine h_, w_;
  int64_t low_h_ = 0, high_h_ = 0, low_w_ = 0, high_w_ = 0;  // of the offsets
  int64_t width_, skip_, left_, columns_;
  std::vector<int64_t> shifts_;
};

}  // namespace lepton::kernels::conv
