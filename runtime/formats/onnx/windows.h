// Sliding windows over the spatial axes of [batch, channels, axes...], for convolutions and
// pooling. Threads: as Builder.
#pragma once

#include "runtime/formats/onnx/rules.h"

namespace lepton::onnx {

struct Windows {
  Ints kernel, strides, dilations, before, after;

  size_t axes() const { return kernel.size(); }
  int64_t reach(size_t axis) const { return dilations[axis] * (kernel[axis] - 1) + 1; }
  // Positions of the window along each axis.
  Ints Outputs(const Shape& x) const;
};

// From a node's attributes; `kernel` where they do not say. Padding is settled by auto_pad, and
// grown where ceil_mode asks for a last, incomplete window.
Windows ReadWindows(Call& c, const Shape& x, Ints kernel);

// [batch, channels, outputs..., kernel...] of x, padded with `fill`.
Id Unfold(Builder& b, Id x, const Windows& windows, double fill);

}  // namespace lepton::onnx
