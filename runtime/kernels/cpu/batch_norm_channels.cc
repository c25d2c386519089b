// The references of batch normalisation.
#include "runtime/kernels/cpu/image_kernels.h"
#include "runtime/kernels/cpu/norm/channels.h"

namespace lepton::kernels::image {
namespace {

using graph::KernelContext;
using norm::Channel;
using norm::ChannelScale;

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

void Normalize(const Channel& channel, const ChannelScale& scale, const Elements& x,
               const Elements& y) {
  channel.ForEach(
      [&](int64_t i) { y.Set(i, (double{x[i]} - scale.mean) * scale.factor + scale.offset); });
}

}  // namespace

void BatchNorm(const KernelContext& context, int64_t begin, int64_t end) {
  const Elements x(context.input(0)), y(context.output(0));
  for (int64_t c = begin; c < end; ++c) {
    const ChannelScale scale = norm::ScaleOf(
        context, c,
        [&](const Channel& channel) {
          double sum = 0;
          channel.ForEach([&](int64_t i) { sum += x[i]; });
          return sum;
        },
        [&](const Channel& channel, double mean) {
          double squares = 0;
          channel.ForEach([&](int64_t i) { squares += (x[i] - mean) * (x[i] - mean); });
          return squares;
        });
    Normalize({context.input(0).shape(), c}, scale, x, y);
  }
}

void BatchNormApply(const KernelContext& context, int64_t begin, int64_t end) {
  const Elements x(context.input(0)), y(context.output(0));
  for (int64_t c = begin; c < end; ++c) {
    Normalize({context.input(0).shape(), c}, norm::AppliedScale(context, c), x, y);
  }
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

}  // namespace lepton::kernels::image
