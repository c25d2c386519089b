#include <algorithm>
#include <cmath>
#include <optional>

#include "runtime/kernels/cpu/image_kernels.h"
#include "runtime/kernels/cpu/simd/loops.h"
#include "runtime/tensor/buffer.h"

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

// Elements of x, y and their gradients, of f32 or bf16.
struct Elements {
  explicit Elements(const TensorView& view)
      : data(view.data), bf16(view.type.dtype == DType::kBF16) {}
  float operator[](int64_t i) const {
    return bf16 ? BF16::ToFloat(static_cast<const BF16*>(data)[i])
                : static_cast<const float*>(data)[i];
  }
  void Set(int64_t i, double value) const {
    const auto number = static_cast<float>(value);
    if (bf16) {
      static_cast<BF16*>(data)[i] = BF16::FromFloat(number);
    } else {
      static_cast<float*>(data)[i] = number;
    }
  }
  void* data;
  bool bf16;
};

// A channel as f32 side by side: where it lies, or a copy.
class DenseChannel {
 public:
  DenseChannel(const Elements& elements, const Channel& channel, Buffer& memory)
      : runs_(channel.runs()) {
    if (!elements.bf16) {
      data_ = static_cast<float*>(elements.data) + channel.first();
      return;
    }
    data_ = Room(channel, memory);
    simd::BestLoops().to_f32_rows(channel.images, channel.pixels,
                                  static_cast<const uint16_t*>(elements.data) + channel.first(),
                                  channel.stride * channel.pixels, data_, channel.pixels);
    runs_ = {1, channel.elements(), channel.elements()};
  }
  const simd::Runs& runs() const { return runs_; }
  const float* data() const { return data_; }

  static float* Room(const Channel& channel, Buffer& memory) {
    const auto bytes = static_cast<size_t>(channel.elements()) * sizeof(float);
    if (memory.size() < bytes) memory = Buffer(bytes);
    return memory.as<float>();
  }

 private:
  simd::Runs runs_;
  float* data_;
};

// Where a channel's results go: where they belong, or, rounded when it ends, there by way of f32.
class ChannelTarget {
 public:
  ChannelTarget(const Elements& elements, const Channel& channel, Buffer& memory)
      : elements_(elements), channel_(channel) {
    data_ = elements.bf16 ? DenseChannel::Room(channel, memory)
                          : static_cast<float*>(elements.data) + channel.first();
  }
  ~ChannelTarget() {
    if (!elements_.bf16) return;
    simd::BestLoops().to_bf16_rows(channel_.images, channel_.pixels, data_, channel_.pixels,
                                   static_cast<uint16_t*>(elements_.data) + channel_.first(),
                                   channel_.stride * channel_.pixels);
  }
  ChannelTarget(const ChannelTarget&) = delete;
  ChannelTarget& operator=(const ChannelTarget&) = delete;
  float* data() const { return data_; }

 private:
  const Elements elements_;
  const Channel channel_;
  float* data_;
};

// What a thread copies channels into.
struct ChannelMemory {
  Buffer x, dy, result;
};

ChannelMemory& ThreadChannels() {
  thread_local ChannelMemory memory;
  return memory;
}

}  // namespace

void BatchNorm(const KernelContext& context, int64_t begin, int64_t end) {
  const Elements x(context.input(0)), y(context.output(0));
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
        channel.ForEach([&](int64_t i) { y.Set(i, (x[i] - mean) * factor + offset); });
      });
}

void VectorBatchNorm(const KernelContext& context, int64_t begin, int64_t end) {
  const simd::Loops& loops = simd::BestLoops();
  ChannelMemory& memory = ThreadChannels();
  const Elements x(context.input(0)), y(context.output(0));
  std::optional<DenseChannel> dense;
  const bool training = context.attributes().Int("training") != 0;
  BatchNormOf(
      context, begin, end,
      [&](const Channel& channel) {
        dense.emplace(x, channel, memory.x);
        return loops.sum(dense->runs(), dense->data());
      },
      [&](const Channel&, double mean) {
        return loops.squared_distance(dense->runs(), mean, dense->data());
      },
      [&](const Channel& channel, double mean, double factor, double offset) {
        if (!training) dense.emplace(x, channel, memory.x);
        const ChannelTarget target(y, channel, memory.result);
        loops.normalize(dense->runs(), static_cast<float>(mean), static_cast<float>(factor),
                        static_cast<float>(offset), dense->data(), target.data());
      });
}

// With h = (x - mean) * rstd: dgain = sum(dy h), dbias = sum(dy), and in training
// dx = gain rstd (dy - dbias / count - h dgain / count).
void BatchNormGrad(const KernelContext& context, int64_t begin, int64_t end) {
  const Elements x(context.input(0)), dy(context.input(4)), dx(context.output(0));
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
      dx.Set(i, gain * rstd * (dy[i] - share * (dbias + h * dgain)));
    });
    context.output(1).as<float>()[c] = static_cast<float>(dgain);
    context.output(2).as<float>()[c] = static_cast<float>(dbias);
  }
}

void VectorBatchNormGrad(const KernelContext& context, int64_t begin, int64_t end) {
  const simd::Loops& loops = simd::BestLoops();
  ChannelMemory& memory = ThreadChannels();
  const Elements x(context.input(0)), dy(context.input(4)), dx(context.output(0));
  const bool training = context.attributes().Int("training") != 0;
  for (int64_t c = begin; c < end; ++c) {
    const Channel channel(context.input(0).shape(), c);
    const double gain = context.input(1).as<float>()[c];
    const double mean = context.input(2).as<float>()[c];
    const double rstd = context.input(3).as<float>()[c];
    double products = 0, dbias = 0;
    const DenseChannel dense(x, channel, memory.x), slopes(dy, channel, memory.dy);
    loops.norm_sums(dense.runs(), mean, dense.data(), slopes.data(), &products, &dbias);
    const double dgain = products * rstd;
    const double share = training ? 1 / static_cast<double>(channel.elements()) : 0;
    const double factor = gain * rstd;
    const ChannelTarget target(dx, channel, memory.result);
    loops.normalize_grad(dense.runs(), static_cast<float>(mean), static_cast<float>(factor),
                         static_cast<float>(factor * share * dbias),
                         static_cast<float>(factor * share * dgain * rstd), dense.data(),
                         slopes.data(), target.data());
    context.output(1).as<float>()[c] = static_cast<float>(dgain);
    context.output(2).as<float>()[c] = static_cast<float>(dbias);
  }
}

}  // namespace lepton::kernels::image
