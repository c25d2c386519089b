#include <algorithm>
#include <cmath>

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

const simd::ChannelLoops<float>& LoopsOf(float) {
  return simd::BestLoops().channels;
}
const simd::ChannelLoops<uint16_t>& LoopsOf(uint16_t) {
  return simd::BestLoops().channels_bf16;
}

void CopyRows(int64_t rows, int64_t columns, const float* x, int64_t x_pitch, float* y,
              int64_t y_pitch) {
  simd::BestLoops().copy_rows(rows, columns, x, x_pitch, y, y_pitch);
}
void CopyRows(int64_t rows, int64_t columns, const uint16_t* x, int64_t x_pitch, float* y,
              int64_t y_pitch) {
  simd::BestLoops().to_f32_rows(rows, columns, x, x_pitch, y, y_pitch);
}
void CopyRows(int64_t rows, int64_t columns, const float* x, int64_t x_pitch, uint16_t* y,
              int64_t y_pitch) {
  simd::BestLoops().to_bf16_rows(rows, columns, x, x_pitch, y, y_pitch);
}

// A channel whose runs are short is copied to f32 side by side first: its lines, a whole image of
// all channels apart, share few sets of the caches, and would come from memory for every pass.
class ShortRuns {
 public:
  static constexpr int64_t kLeastPixels = 256;  // from here on channels are read where they lie

  explicit ShortRuns(const Channel& channel) : channel_(channel) {}
  simd::Runs runs() const { return {1, channel_.elements(), channel_.elements()}; }

  // `from` and `to` are the channel's first number. Memory of the thread, one of each slot.
  template <int kSlot, typename Number>
  float* Gather(const Number* from) const {
    float* const to = Room<kSlot>();
    CopyRows(channel_.images, channel_.pixels, from, Pitch(), to, channel_.pixels);
    return to;
  }
  template <int kSlot>
  float* Room() const {
    thread_local Buffer memory;
    const auto bytes = static_cast<size_t>(channel_.elements()) * sizeof(float);
    if (memory.size() < bytes) memory = Buffer(bytes);
    return memory.as<float>();
  }
  template <typename Number>
  void Scatter(const float* from, Number* to) const {
    CopyRows(channel_.images, channel_.pixels, from, channel_.pixels, to, Pitch());
  }

 private:
  int64_t Pitch() const { return channel_.stride * channel_.pixels; }

  const Channel channel_;
};

template <typename Number>
void VectorNorm(const KernelContext& context, int64_t begin, int64_t end) {
  const auto& loops = LoopsOf(Number());
  const auto& short_loops = LoopsOf(float());
  const bool training = context.attributes().Int("training") != 0;
  const auto* x = context.input(0).as<Number>();
  auto* y = context.output(0).as<Number>();
  const float* gathered = nullptr;  // of the channel at hand, if its runs are short
  BatchNormOf(
      context, begin, end,
      [&](const Channel& channel) {
        if (channel.pixels >= ShortRuns::kLeastPixels) {
          return loops.sum(channel.runs(), x + channel.first());
        }
        const ShortRuns runs(channel);
        gathered = runs.Gather<0>(x + channel.first());
        return short_loops.sum(runs.runs(), gathered);
      },
      [&](const Channel& channel, double mean) {
        return channel.pixels >= ShortRuns::kLeastPixels
                   ? loops.squared_distance(channel.runs(), mean, x + channel.first())
                   : short_loops.squared_distance(ShortRuns(channel).runs(), mean, gathered);
      },
      [&](const Channel& channel, double mean, double factor, double offset) {
        const auto center = static_cast<float>(mean);
        const auto scale = static_cast<float>(factor);
        const auto shift = static_cast<float>(offset);
        // Without statistics to take, once is all that x is read.
        if (!training || channel.pixels >= ShortRuns::kLeastPixels) {
          loops.normalize(channel.runs(), center, scale, shift, x + channel.first(),
                          y + channel.first());
          return;
        }
        const ShortRuns runs(channel);
        float* const result = runs.Room<1>();
        short_loops.normalize(runs.runs(), center, scale, shift, gathered, result);
        runs.Scatter(result, y + channel.first());
      });
}

template <typename Number>
void NormGradOf(const KernelContext& context, int64_t c, const simd::ChannelLoops<Number>& loops,
                const simd::Runs& runs, const Number* x, const Number* dy, Number* dx) {
  const bool training = context.attributes().Int("training") != 0;
  const double gain = context.input(1).as<float>()[c];
  const double mean = context.input(2).as<float>()[c];
  const double rstd = context.input(3).as<float>()[c];
  double products = 0, dbias = 0;
  loops.norm_sums(runs, mean, x, dy, &products, &dbias);
  const double dgain = products * rstd;
  const double share = training ? 1 / static_cast<double>(runs.count * runs.length) : 0;
  const double factor = gain * rstd;
  loops.normalize_grad(runs, static_cast<float>(mean), static_cast<float>(factor),
                       static_cast<float>(factor * share * dbias),
                       static_cast<float>(factor * share * dgain * rstd), x, dy, dx);
  context.output(1).as<float>()[c] = static_cast<float>(dgain);
  context.output(2).as<float>()[c] = static_cast<float>(dbias);
}

template <typename Number>
void VectorNormGrad(const KernelContext& context, int64_t begin, int64_t end) {
  for (int64_t c = begin; c < end; ++c) {
    const Channel channel(context.input(0).shape(), c);
    const auto* x = context.input(0).as<Number>() + channel.first();
    const auto* dy = context.input(4).as<Number>() + channel.first();
    auto* dx = context.output(0).as<Number>() + channel.first();
    if (channel.pixels >= ShortRuns::kLeastPixels) {
      NormGradOf(context, c, LoopsOf(Number()), channel.runs(), x, dy, dx);
      continue;
    }
    const ShortRuns runs(channel);
    float* const result = runs.Room<1>();
    NormGradOf<float>(context, c, LoopsOf(float()), runs.runs(), runs.Gather<0>(x),
                      runs.Gather<2>(dy), result);
    runs.Scatter(result, dx);
  }
}

bool IsBf16(const KernelContext& context) {
  return context.input(0).type.dtype == DType::kBF16;
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
  IsBf16(context) ? VectorNorm<uint16_t>(context, begin, end)
                  : VectorNorm<float>(context, begin, end);
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
  IsBf16(context) ? VectorNormGrad<uint16_t>(context, begin, end)
                  : VectorNormGrad<float>(context, begin, end);
}

}  // namespace lepton::kernels::image
