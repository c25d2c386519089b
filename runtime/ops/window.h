// The sliding window of convolutions and pools over the last two axes, from the attributes
//   strides [2], dilations [2] (default 1), pads [top, left, bottom, right] (default 0).
// Threads: plain values.
#pragma once

#include <algorithm>
#include <array>

#include "runtime/graph/attributes.h"
#include "runtime/tensor/shape.h"

namespace lepton::ops {

struct WindowAxis {
  int64_t extent = 1;
  int64_t stride = 1;
  int64_t dilation = 1;
  int64_t before = 0;  // padding
  int64_t after = 0;

  int64_t Span() const { return dilation * (extent - 1) + 1; }
  // Below 1 when the window does not fit.
  int64_t Outputs(int64_t inputs) const {
    const int64_t room = inputs + before + after - Span();
    return room < 0 ? 0 : room / stride + 1;
  }
};

struct Window {
  WindowAxis h, w;
};

// The attributes must have passed CheckWindow.
inline Window MakeWindow(int64_t extent_h, int64_t extent_w, const graph::Attributes& attributes) {
  const auto strides = attributes.Ints("strides", {1, 1});
  const auto dilations = attributes.Ints("dilations", {1, 1});
  const auto pads = attributes.Ints("pads", {0, 0, 0, 0});
  return {{extent_h, strides[0], dilations[0], pads[0], pads[2]},
          {extent_w, strides[1], dilations[1], pads[1], pads[3]}};
}

// kInvalidArgument for lists of the wrong length or range, and for an image [.., h, w] that is open
// or smaller than the window.
inline Status CheckWindow(int64_t extent_h, int64_t extent_w, const Shape& image,
                          const graph::Attributes& attributes) {
  const auto all_from = [](const std::vector<int64_t>& list, size_t size, int64_t least) {
    // Far from overflow in every sum and product of extents.
    constexpr int64_t kMost = 1 << 24;
    return list.size() == size && std::all_of(list.begin(), list.end(), [&](int64_t value) {
             return value >= least && value <= kMost;
           });
  };
  if (!all_from({extent_h, extent_w}, 2, 1) ||
      !all_from(attributes.Ints("strides", {1, 1}), 2, 1) ||
      !all_from(attributes.Ints("dilations", {1, 1}), 2, 1) ||
      !all_from(attributes.Ints("pads", {0, 0, 0, 0}), 4, 0)) {
    return InvalidArgument(
        "kernel, strides and dilations must be two numbers from 1 on, pads four from 0 on");
  }
  const Window window = MakeWindow(extent_h, extent_w, attributes);
  const int64_t h = image[image.rank() - 2];
  const int64_t w = image[image.rank() - 1];
  if (h < 1 || w < 1 || window.h.Outputs(h) < 1 || window.w.Outputs(w) < 1) {
    return InvalidArgument("a window of " + std::to_string(window.h.Span()) + " x " +
                           std::to_string(window.w.Span()) + " does not fit into " +
                           image.ToString());
  }
  return Status::Ok();
}

}  // namespace lepton::ops
