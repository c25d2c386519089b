// What the kernels of batch normalisation share: a channel's elements, and what makes y of x.
// Threads: plain values.
#pragma once

#include <algorithm>
#include <cmath>

#include "runtime/graph/kernel_table.h"
#include "runtime/kernels/cpu/simd/loops.h"

namespace lepton::kernels::norm {

// One channel of [images, channels, pixels].
struct Channel {
  Channel(const Shape& x, int64_t channel) : images(x[0]), stride(x[1]), index(channel) {
    for (int axis = 2; axis < x.rank(); ++axis) pixels *= x[axis];
  }
  int64_t elements() const { return images * pixels; }
  // From first() on.
  simd::Runs runs() const { return {images, stride * pixels, pixels}; }
  int64_t first() const { return index * pixels; }
  template <typename Function>
  void ForEach(Function function) const {
    for (int64_t image = 0; image < images; ++image) {
      const int64_t start = (image * stride + index) * pixels;
      for (int64_t i = start; i < start + pixels; ++i) function(i);
    }
  }
  int64_t images, stride, index;
  int64_t pixels = 1;
};

// y = (x - mean) * factor + offset. Of f32 numbers that the op gives out, so that batch_norm_apply
// makes the same bits of them.
struct ChannelScale {
  ChannelScale(float channel_mean, float rstd, float gain, float bias)
      : mean(channel_mean), factor(static_cast<float>(double{rstd} * double{gain})), offset(bias) {}
  float mean, factor, offset;
};

// Of channel `c`, whose statistics it writes: `sum` and `squares` (of the distances from the mean)
// are called in training.
template <typename Sum, typename Squares>
ChannelScale ScaleOf(const graph::KernelContext& context, int64_t c, Sum sum, Squares squares) {
  const double epsilon = context.attributes().Float("epsilon", 1e-5);
  const double momentum = context.attributes().Float("momentum", 0.1);
  const auto input = [&](int i) { return context.input(i).as<float>()[c]; };
  const auto output = [&](int i, double value) {
    return context.output(i).as<float>()[c] = static_cast<float>(value);
  };
  double mean = input(3), variance = input(4);
  output(1, mean);
  output(2, variance);
  if (context.attributes().Int("training") != 0) {
    const Channel channel(context.input(0).shape(), c);
    const auto count = static_cast<double>(channel.elements());
    mean = sum(channel) / count;
    const double distances = squares(channel, mean);
    variance = distances / count;
    output(1, (1 - momentum) * double{input(3)} + momentum * mean);
    output(2, (1 - momentum) * double{input(4)} + momentum * distances / std::max(1.0, count - 1));
  }
  const float kept_mean = output(3, mean);
  const float rstd = output(4, 1 / std::sqrt(variance + epsilon));
  return {kept_mean, rstd, input(1), input(2)};
}

// Of channel `c` of batch_norm_apply.
inline ChannelScale AppliedScale(const graph::KernelContext& context, int64_t c) {
  const auto input = [&](int i) { return context.input(i).as<float>()[c]; };
  return {input(3), input(4), input(1), input(2)};
}

}  // namespace lepton::kernels::norm
