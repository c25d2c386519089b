// The extents of a convolution, from a node of conv2d or of one of its gradients.
// Threads: plain values.
#pragma once

#include "runtime/graph/kernel_table.h"
#include "runtime/ops/window.h"

namespace lepton::kernels {

struct ConvShape {
  ConvShape(const Shape& x, const Shape& weights, const graph::Attributes& attributes)
      : images(x[0]),
        groups(attributes.Int("groups", 1)),
        in_channels(x[1]),
        in_h(x[2]),
        in_w(x[3]),
        out_channels(weights[0]),
        window(ops::MakeWindow(weights[2], weights[3], attributes)),
        out_h(window.h.Outputs(in_h)),
        out_w(window.w.Outputs(in_w)) {}

  // Elements of one image, or of the weights.
  int64_t x_elements() const { return in_channels * in_h * in_w; }
  int64_t y_elements() const { return out_channels * out_h * out_w; }
  int64_t weight_elements() const {
    return out_channels * in_channels / groups * window.h.extent * window.w.extent;
  }

  // What says how weights are packed for the window: equal text, equal window.
  std::string WindowText() const {
    std::string text = "groups " + std::to_string(groups);
    for (const ops::WindowAxis& w : {window.h, window.w}) {
      for (const int64_t number : {w.extent, w.stride, w.dilation, w.before, w.after}) {
        text += " " + std::to_string(number);
      }
    }
    return text;
  }

  int64_t images, groups;
  int64_t in_channels, in_h, in_w;
  int64_t out_channels;
  ops::Window window;
  int64_t out_h, out_w;
};

}  // namespace lepton::kernels
