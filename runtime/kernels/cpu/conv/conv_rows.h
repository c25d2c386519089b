// The matrix that a convolution multiplies with its weights ("im2col": Chellapilla et al. 2006),
// row by row as it is needed: a row is an output pixel, and holds what its window sees, tap by tap,
// all channels of a tap side by side. Images lie with their channels last, so that a tap is one
// copy. Threads: plain values.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "runtime/kernels/cpu/conv/planes.h"
#include "runtime/kernels/cpu/conv_shape.h"

namespace lepton::kernels::conv {

// Along one axis output pixel p and tap i see input p * stride + i * dilation - before, if that is
// within the image.
struct Axis {
  int64_t in, out, taps, stride, dilation, before;

  static Axis Forward(const ops::WindowAxis& w, int64_t in, int64_t out) {
    return {in, out, w.extent, w.stride, w.dilation, w.before};
  }
  // Of a line whose taps are equally far apart, as those of TapLine::Backward.
  static Axis Of(const TapLine& line) {
    const auto taps = static_cast<int64_t>(line.offsets.size());
    return {line.in,
            line.out,
            taps,
            1,
            taps > 1 ? line.offsets[1] - line.offsets[0] : 1,
            taps > 0 ? -line.offsets[0] : 0};
  }
  // -1: nothing there.
  int64_t At(int64_t p, int64_t tap) const {
    const int64_t place = p * stride + tap * dilation - before;
    return place < in ? std::max<int64_t>(place, -1) : -1;
  }
};

class Rows {
 public:
  Rows(const Axis& h, const Axis& w, int64_t channels) : h_(h), w_(w), channels_(channels) {}

  int64_t pixels() const { return h_.out * w_.out; }
  int64_t columns() const { return h_.taps * w_.taps * channels_; }
  int64_t image_elements() const { return h_.in * w_.in * channels_; }

  // Columns [first, end) of `count` rows from `row` on, to rows `pitch` elements apart; columns
  // from columns() on are 0. `images`: [images, h, w, channels], bf16 or 8-bit.
  template <typename Number>
  void Copy(const Number* images, int64_t row, int64_t count, int64_t first, int64_t end,
            Number* to, int64_t pitch) const {
    const Start start{first / channels_ / w_.taps, first / channels_ % w_.taps, first % channels_};
    const int64_t taken = std::min(end, columns()) - first;
    const Number* image = images + row / pixels() * image_elements();
    int64_t y = row % pixels() / w_.out, x = row % w_.out;
    for (int64_t i = 0; i < count; ++i, to += pitch) {
      CopyRow(image, y, x, start, taken, to);
      if (taken < end - first) {
        std::memset(to + taken, 0, sizeof(Number) * (end - first - taken));
      }
      if (++x < w_.out) continue;
      x = 0;
      if (++y < h_.out) continue;
      y = 0;
      image += image_elements();
    }
  }

 private:
  struct Start {
    int64_t tap_y, tap_x, channel;
  };

  // Line by line of the window, in as few pieces as lie side by side in the image.
  template <typename Number>
  void CopyRow(const Number* image, int64_t y, int64_t x, const Start& start, int64_t left,
               Number* to) const {
    const bool together = w_.dilation == 1;
    int64_t tap_y = start.tap_y, tap_x = start.tap_x, channel = start.channel;
    while (left > 0) {
      const int64_t source_y = h_.At(y, tap_y);
      const Number* line = image + source_y * w_.in * channels_;
      while (tap_x < w_.taps && left > 0) {
        const int64_t source_x = source_y < 0 ? -1 : w_.At(x, tap_x);
        int64_t taps = 1;
        if (source_y < 0) {
          taps = w_.taps - tap_x;
        } else if (together && source_x >= 0) {
          taps = std::min(w_.taps - tap_x, w_.in - source_x);
        }
        const int64_t elements = std::min(taps * channels_ - channel, left);
        if (source_x < 0) {
          std::memset(to, 0, sizeof(Number) * elements);
        } else {
          std::memcpy(to, line + source_x * channels_ + channel, sizeof(Number) * elements);
        }
        to += elements;
        left -= elements;
        tap_x += taps;
        channel = 0;
      }
      tap_x = 0;
      ++tap_y;
    }
  }

  const Axis h_, w_;
  const int64_t channels_;
};

}  // namespace lepton::kernels::conv
