// What the convolutions on shifted images share: which shapes they take, how much they hold at a
// time.
#pragma once

#include <algorithm>

#include "runtime/kernels/cpu/conv_shape.h"

namespace lepton::kernels::conv {

inline constexpr int64_t kBlockRows = 32;        // channels of a block
inline constexpr int64_t kStripBytes = 3 << 18;  // of planes at a time: they stay in an L2 of 2 MiB

inline bool HasUnitStrides(const ConvShape& s) {
  return s.window.h.stride == 1 && s.window.w.stride == 1;
}

// A window that sees the pixel that it is at, and no border.
inline bool IsOnePixel(const ConvShape& s) {
  const auto one = [](const ops::WindowAxis& w) {
    return w.extent == 1 && w.before == 0 && w.after == 0;
  };
  return one(s.window.h) && one(s.window.w);
}

inline bool HasPixels(const ConvShape& s) {
  return s.groups == 1 && s.images > 0 && s.out_h > 0 && s.out_w > 0;
}

// Taps that lie no further apart than the image is large: planes with their border (planes.h) are
// then not much more than the image.
inline bool HasSmallBorder(const ConvShape& s) {
  const auto small = [](const ops::WindowAxis& w, int64_t in, int64_t out) {
    return w.Span() - 1 <= 2 * std::max({in, out, int64_t{8}});
  };
  return small(s.window.h, s.in_h, s.out_h) && small(s.window.w, s.in_w, s.out_w);
}

// Few channels, of which every tap is made a row.
inline bool TakesRows(const ConvShape& s, int64_t in_channels) {
  constexpr int64_t kMostRows = 512;
  return s.window.h.extent * s.window.w.extent * in_channels <= kMostRows;
}

}  // namespace lepton::kernels::conv
