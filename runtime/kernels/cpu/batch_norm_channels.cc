#include <algorithm>
#include <cmath>

#include "runtime/kernels/cpu/image_kernels.h"
#include "runtime/kernels/cpu/simd/loops.h"

namespace lepton::kernels::image {
namespace {

using graph::KernelContext;

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

// `sum` and `squares` (of the distances from the mean) of a channel, and what makes y of x.
template <typename Sum, typename Squares, typename Normalize>
void BatchNormOf(const KernelContext& context, int64_t begin, int64_t end, Sum channel_sum,
                 Squares channel_squares, Normalize normalize) {
  const bool training = context.attributes().Int("training") != 0;
  const double epsilon = context.attributes().Float("epsilon", 1e-5);
  const double momentum = context.attributes().Float("momentum", 0.1);
  for (int64_t c = begin; c < end; ++c) {
    const auto input = [&](int i) { return double{context.input(i).as<float>()[c]}; };
    const auto output = [&](int i, double value) {
      context.output(i).as<float>()[c] = static_cast<float>(value);
    };
    const Channel channel(context.input(0).shape(), c);
    const auto count = static_cast<double>(channel.elements());
    double mean = input(3);
    double variance = input(4);
    output(1, mean);
    output(2, variance);
    if (training) {
      mean = channel_sum(channel) / count;
      const double squares = channel_squares(channel, mean);
      variance = squares / count;
      output(1, (1 - momentum) * input(3) + momentum * mean);
      output(2, (1 - momentum) * input(4) + momentum * squares / std::max(1.0, count - 1));
    }
    const double rstd = 1 / std::sqrt(variance + epsilon);
    output(3, mean);
    output(4, rstd);
    normalize(channel, mean, rstd * input(1), input(2));
  }
}

}  // namespace

void BatchNorm(const KernelContext& context, int64_t begin, int64_t end) {
  const float* x = context.input(0).as<float>();
  float* y = context.output(0).as<float>();
  BatchNormOf(
      context, begin, end,
      [&](const Channel& channel) {
        double sum = 0;
        channel.ForEach([&](int64_t i) { sum += x[i]; });
        return sum;
      },
      [&](const Channel& channel, double mean) {
        double squares = 0;
        channel.ForEach([&](int64_t i) { squares += (x[i] - mean) * (x[i] - mean); });
        return squares;
      },
      [&](const Channel& channel, double mean, double factor, double offset) {
        channel.ForEach(
            [&](int64_t i) { y[i] = static_cast<float>((x[i] - mean) * factor + offset); });
      });
}

void VectorBatchNorm(const KernelContext& context, int64_t begin, int64_t end) {
  const simd::Loops& loops = simd::BestLoops();
  const float* x = context.input(0).as<float>();
  float* y = context.output(0).as<float>();
  BatchNormOf(
      context, begin, end,
      [&](const Channel& channel) { return loops.sum(channel.runs(), x + channel.first()); },
      [&](const Channel& channel, double mean) {
        return loops.squared_distance(channel.runs(), mean, x + channel.first());
      },
      [&](const Channel& channel, double mean, double factor, double offset) {
        loops.normalize(channel.runs(), static_cast<float>(mean), static_cast<float>(factor),
                        static_cast<float>(offset), x + channel.first(), y + channel.first());
      });
}

// With h = (x - mean) * rstd: dgain = sum(dy h), dbias = sum(dy), and in training
// dx = gain rstd (dy - dbias / count - h dgain / count).
void BatchNormGrad(const KernelContext& context, int64_t begin, int64_t end) {
  const float* x = context.input(0).as<float>();
  const float* dy = context.input(4).as<float>();
  float* dx = context.output(0).as<float>();
  const bool training = context.attributes().Int("training") != 0;
  for (int64_t c = begin; c < end; ++c) {
    const Channel channel(context.input(0).shape(), c);
    const double gain = context.input(1).as<float>()[c];
    const double mean = context.input(2).as<float>()[c];
    const double rstd = context.input(3).as<float>()[c];
    double dgain = 0;
    double dbias = 0;
    channel.ForEach([&](int64_t i) {
      dgain += dy[i] * ((x[i] - mean) * rstd);
      dbias += dy[i];
    });
    const double share = training ? 1 / static_cast<double>(channel.elements()) : 0;
    channel.ForEach([&](int64_t i) {
      const double h = (x[i] - mean) * rstd;
      dx[i] = static_cast<float>(gain * rstd * (dy[i] - share * (dbias + h * dgain)));
    });
    context.output(1).as<float>()[c] = static_cast<float>(dgain);
    context.output(2).as<float>()[c] = static_cast<float>(dbias);
  }
}

void VectorBatchNormGrad(const KernelContext& context, int64_t begin, int64_t end) {
  const simd::Loops& loops = simd::BestLoops();
  const float* x = context.input(0).as<float>();
  const float* dy = context.input(4).as<float>();
  float* dx = context.output(0).as<float>();
  const bool training = context.attributes().Int("training") != 0;
  for (int64_t c = begin; c < end; ++c) {
    const Channel channel(context.input(0).shape(), c);
    const double gain = context.input(1).as<float>()[c];
    const double mean = context.input(2).as<float>()[c];
    const double rstd = context.input(3).as<float>()[c];
    double products = 0, dbias = 0;
    const int64_t at = channel.first();
    loops.norm_sums(channel.runs(), mean, x + at, dy + at, &products, &dbias);
    const double dgain = products * rstd;
    const double share = training ? 1 / static_cast<double>(channel.elements()) : 0;
    const double factor = gain * rstd;
    loops.normalize_grad(channel.runs(), static_cast<float>(mean), static_cast<float>(factor),
                         static_cast<float>(factor * share * dbias),
                         static_cast<float>(factor * share * dgain * rstd), x + at, dy + at,
                         dx + at);
    context.output(1).as<float>()[c] = static_cast<float>(dgain);
    context.output(2).as<float>()[c] = static_cast<float>(dbias);
  }
}

}  // namespace lepton::kernels::image
