#include "runtime/kernels/cpu/norm/batch_norm_kernels.h"

#include <optional>
#include <vector>

#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/kernels/cpu/function_kernel.h"
#include "runtime/kernels/cpu/norm/channels.h"
#include "runtime/kernels/cpu/pointwise/program.h"
#include "runtime/kernels/cpu/pointwise/scratch.h"
#include "runtime/tensor/buffer.h"

namespace lepton::kernels::norm {
namespace {

constexpr int64_t kChannelGrain = 1 << 14;  // elements for which another thread is worth waking

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

// The pointwise nodes that follow on blocks of whole planes, or of whole lines of one plane, which
// are dense in memory.
class PlaneFollowers {
 public:
  explicit PlaneFollowers(const KernelRequest& request) : line_(request.inputs[0].shape.back()) {
    if (request.followers.empty()) return;
    program_.emplace(request.followers, request.node->outputs[0], request.types, request.kept);
  }
  static bool CanRun(const KernelRequest& request) {
    if (request.followers.empty()) return true;
    // Where a plane is one number, lines go across channels.
    if (request.inputs[0].shape.rank() < 3) return false;
    const int64_t line = request.inputs[0].shape.back();
    return line > 0 && line <= pointwise::kBlockElements &&
           pointwise::Program::CanRun(request.followers, request.types);
  }
  bool any() const { return program_.has_value(); }

  // Elements that are taken at a time, of a run of `count`.
  int64_t BlockOf(int64_t count) const {
    return std::min(count, pointwise::kBlockElements / line_ * line_);
  }
  void Fetch(const KernelContext& context, int64_t first, int64_t count) const {
    program_->Prefetch(context, {first / line_, count / line_, 0, line_, line_, line_});
  }
  // `values`: what the anchor computed of [first, first + count), unrounded.
  void Run(const KernelContext& context, int64_t first, int64_t count, float* values) const {
    alignas(64) float rounded[pointwise::kBlockElements];
    if (context.input(0).type.dtype == DType::kBF16) {
      simd::BestLoops().round_bf16(count, values, rounded);
      values = rounded;
    }
    program_->Run(context, {first / line_, count / line_, 0, line_, line_, line_},
                  pointwise::ThreadRegisters(program_->registers()), values);
  }

 private:
  const int64_t line_;
  std::optional<pointwise::Program> program_;
};

// y of x by the scales of its channels, and what follows.
class Normalizer {
 public:
  explicit Normalizer(const KernelRequest& request) : followers_(request) {
    const Channel channel(request.inputs[0].shape, 0);
    planes_ = channel.images * channel.stride;
    pixels_ = channel.pixels;
  }
  int64_t planes() const { return planes_; }
  int64_t pixels() const { return pixels_; }

  // A plane; `scale` is its channel's. What follows is fetched of plane `next` meanwhile, unless
  // that is negative.
  template <typename Number>
  void Plane(const KernelContext& context, const ChannelScale& scale, int64_t plane,
             int64_t next = -1) const {
    const int64_t first = plane * pixels_;
    if (!followers_.any()) {
      NormalizeInto(scale, context.input(0).as<Number>() + first, pixels_,
                    context.output(0).as<Number>() + first);
      return;
    }
    const int64_t block = followers_.BlockOf(pixels_);
    alignas(64) float values[pointwise::kBlockElements];
    for (int64_t i = 0; i < pixels_; i += block) {
      const int64_t count = std::min(block, pixels_ - i);
      if (next >= 0) followers_.Fetch(context, next * pixels_ + i, count);
      NormalizeTo(scale, context.input(0).as<Number>() + first + i, count, values);
      followers_.Run(context, first + i, count, values);
    }
  }

  // Planes [begin, end) of all channels, several in a block where they are small.
  template <typename Number, typename ScaleOfPlane>
  void Planes(const KernelContext& context, int64_t begin, int64_t end,
              const ScaleOfPlane& scale) const {
    if (pixels_ == 0) return;
    const int64_t at_once = std::max<int64_t>(1, pointwise::kBlockElements / pixels_);
    if (!followers_.any() || at_once == 1) {
      for (int64_t plane = begin; plane < end; ++plane) {
        Plane<Number>(context, scale(plane), plane);
      }
      return;
    }
    alignas(64) float values[pointwise::kBlockElements];
    for (int64_t plane = begin; plane < end; plane += at_once) {
      const int64_t planes = std::min(at_once, end - plane);
      for (int64_t i = 0; i < planes; ++i) {
        NormalizeTo(scale(plane + i), context.input(0).as<Number>() + (plane + i) * pixels_,
                    pixels_, values + i * pixels_);
      }
      followers_.Run(context, plane * pixels_, planes * pixels_, values);
    }
  }
  bool fuses() const { return followers_.any(); }

 private:
  template <typename Number>
  static void NormalizeInto(const ChannelScale& scale, const Number* x, int64_t count, Number* y) {
    LoopsOf(Number()).normalize({1, count, count}, scale.mean, scale.factor, scale.offset, x, y);
  }
  static void NormalizeTo(const ChannelScale& scale, const float* x, int64_t count, float* y) {
    NormalizeInto(scale, x, count, y);
  }
  static void NormalizeTo(const ChannelScale& scale, const uint16_t* x, int64_t count, float* y) {
    alignas(64) float wide[pointwise::kBlockElements];
    simd::BestLoops().to_f32_rows(1, count, x, count, wide, count);
    NormalizeInto(scale, wide, count, y);
  }

  int64_t planes_ = 0, pixels_ = 1;
  const PlaneFollowers followers_;
};

template <typename Number>
class BatchNorm final : public graph::Kernel {
 public:
  explicit BatchNorm(const KernelRequest& request) : normalizer_(request) {}

  void Run(const KernelContext& context) override {
    const Shape& shape = context.input(0).shape();
    const int64_t channels = shape[1];
    const bool is_long = normalizer_.pixels() >= ShortRuns::kLeastPixels;
    // Channel by channel while it is in the caches; but what follows short runs goes by planes,
    // once all channels have their scales.
    const bool by_planes = !is_long && normalizer_.fuses();
    std::vector<ChannelScale> scales;
    if (by_planes) scales.assign(static_cast<size_t>(channels), {0, 0, 0, 0});
    const int64_t elements = context.input(0).elements() / std::max<int64_t>(1, channels);
    ComputeLoop(channels, std::max<int64_t>(1, kChannelGrain / std::max<int64_t>(1, elements)),
                [&](int64_t begin, int64_t end) {
                  for (int64_t c = begin; c < end; ++c) {
                    const ChannelScale scale = OfChannel(context, c, is_long, by_planes);
                    if (by_planes) scales[static_cast<size_t>(c)] = scale;
                  }
                });
    if (!by_planes) return;
    const int64_t pixels = std::max<int64_t>(1, normalizer_.pixels());
    ComputeLoop(normalizer_.planes(), std::max<int64_t>(1, kChannelGrain / pixels),
                [&](int64_t begin, int64_t end) {
                  normalizer_.template Planes<Number>(context, begin, end, [&](int64_t plane) {
                    return scales[static_cast<size_t>(plane % channels)];
                  });
                });
  }

 private:
  ChannelScale OfChannel(const KernelContext& context, int64_t c, bool is_long,
                         bool by_planes) const {
    const auto& loops = LoopsOf(Number());
    const auto& short_loops = LoopsOf(float());
    const auto* x = context.input(0).as<Number>();
    const float* gathered = nullptr;
    const ChannelScale scale = ScaleOf(
        context, c,
        [&](const Channel& channel) {
          if (is_long) return loops.sum(channel.runs(), x + channel.first());
          const ShortRuns runs(channel);
          gathered = runs.Gather<0>(x + channel.first());
          return short_loops.sum(runs.runs(), gathered);
        },
        [&](const Channel& channel, double mean) {
          return is_long ? loops.squared_distance(channel.runs(), mean, x + channel.first())
                         : short_loops.squared_distance(ShortRuns(channel).runs(), mean, gathered);
        });
    if (by_planes) return scale;
    const Channel channel(context.input(0).shape(), c);
    if (normalizer_.fuses()) {
      for (int64_t image = 0; image < channel.images; ++image) {
        const int64_t plane = image * channel.stride + c;
        normalizer_.template Plane<Number>(
            context, scale, plane, image + 1 < channel.images ? plane + channel.stride : -1);
      }
      return scale;
    }
    auto* const y = context.output(0).as<Number>() + channel.first();
    if (gathered == nullptr) {
      loops.normalize(channel.runs(), scale.mean, scale.factor, scale.offset, x + channel.first(),
                      y);
      return scale;
    }
    const ShortRuns runs(channel);
    float* const result = runs.Room<1>();
    short_loops.normalize(runs.runs(), scale.mean, scale.factor, scale.offset, gathered, result);
    runs.Scatter(result, y);
    return scale;
  }

  const Normalizer normalizer_;
};

template <typename Number>
class BatchNormApply final : public graph::Kernel {
 public:
  explicit BatchNormApply(const KernelRequest& request) : normalizer_(request) {}
  void Run(const KernelContext& context) override {
    const int64_t channels = context.input(0).shape()[1];
    const int64_t pixels = std::max<int64_t>(1, normalizer_.pixels());
    ComputeLoop(normalizer_.planes(), std::max<int64_t>(1, kChannelGrain / pixels),
                [&](int64_t begin, int64_t end) {
                  normalizer_.template Planes<Number>(context, begin, end, [&](int64_t plane) {
                    return AppliedScale(context, plane % channels);
                  });
                });
  }

 private:
  const Normalizer normalizer_;
};

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

template <typename Number>
class BatchNormGrad final : public graph::Kernel {
 public:
  explicit BatchNormGrad(const KernelRequest&) {}
  void Run(const KernelContext& context) override {
    const int64_t channels = context.input(0).shape()[1];
    const int64_t elements = context.input(0).elements() / std::max<int64_t>(1, channels);
    ComputeLoop(channels, std::max<int64_t>(1, kChannelGrain / std::max<int64_t>(1, elements)),
                [&](int64_t begin, int64_t end) { VectorNormGrad<Number>(context, begin, end); });
  }
};

template <template <typename> class Kernel>
std::unique_ptr<graph::Kernel> CreateOfType(const KernelRequest& request) {
  if (request.inputs[0].dtype == DType::kBF16) return std::make_unique<Kernel<uint16_t>>(request);
  return std::make_unique<Kernel<float>>(request);
}

}  // namespace

std::vector<graph::KernelEntry> BatchNormKernels(DType dtype) {
  return {{.op = "batch_norm",
           .dtype = dtype,
           .implementation = "threaded",
           .can_run = &PlaneFollowers::CanRun,
           .create = &CreateOfType<BatchNorm>,
           .fuses = true},
          {.op = "batch_norm_apply",
           .dtype = dtype,
           .implementation = "threaded",
           .can_run = &PlaneFollowers::CanRun,
           .create = &CreateOfType<BatchNormApply>,
           .fuses = true},
          {.op = "batch_norm_grad",
           .dtype = dtype,
           .implementation = "threaded",
           .can_run = &Always,
           .create = &CreateOfType<BatchNormGrad>}};
}

}  // namespace lepton::kernels::norm
