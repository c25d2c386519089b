#include <algorithm>
#include <cmath>
#include <vector>

#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/kernels/cpu/simd/loops.h"
#include "runtime/kernels/cpu/transformer_kernels.h"
#include "runtime/ops/rope.h"

namespace lepton::kernels::transformer {
namespace {

using graph::KernelContext;

constexpr int64_t kGrain = 1 << 14;  // elements for which another thread is worth waking

int64_t RowGrain(int64_t n) {
  return std::max<int64_t>(1, kGrain / n);
}

class Rope final : public graph::Kernel {
 public:
  explicit Rope(const graph::KernelRequest& request)
      : width_(request.inputs[0].shape.back()),
        d_(request.attributes->Int("size", width_)),
        positions_(request.inputs[0].shape[request.inputs[0].shape.rank() - 2]),
        dims_(request.attributes->Int("dims", d_)),
        interleaved_(request.attributes->Int("interleaved") != 0),
        has_angles_(request.inputs.size() == 2) {
    if (has_angles_) return;
    const double sign = request.attributes->Int("inverse") != 0 ? -1 : 1;
    const double magnitude = request.attributes->Float("magnitude", 1);
    const auto offset = static_cast<double>(request.attributes->Int("offset"));
    const std::vector<double> frequencies = ops::RopeFrequencies(dims_, *request.attributes);
    for (int64_t position = 0; position < positions_; ++position) {
      for (const double frequency : frequencies) {
        const double angle = (offset + static_cast<double>(position)) * frequency;
        cosines_.push_back(static_cast<float>(magnitude * std::cos(angle)));
        sines_.push_back(static_cast<float>(sign * magnitude * std::sin(angle)));
      }
    }
  }

  void Run(const KernelContext& context) override {
    const TensorView& x = context.input(0);
    const TensorView& y = context.output(0);
    const bool bf16 = x.type.dtype == DType::kBF16;
    ComputeLoop(x.shape().rows(), RowGrain(width_), [&](int64_t begin, int64_t end) {
      std::vector<float> wide(bf16 ? 2 * width_ : 0);
      for (int64_t row = begin; row < end; ++row) {
        const float* from = x.as<float>() + (bf16 ? 0 : row * width_);
        float* to = y.as<float>() + (bf16 ? 0 : row * width_);
        if (bf16) {
          from = wide.data();
          to = wide.data() + width_;
          simd::BestLoops().to_f32(width_, x.as<uint16_t>() + row * width_, wide.data());
        }
        const Angles angles = AnglesOf(context, row);
        for (int64_t at = 0; at < width_; at += d_) RunHead(angles, from + at, to + at);
        if (bf16) simd::BestLoops().to_bf16(width_, to, y.as<uint16_t>() + row * width_);
      }
    });
  }

 private:
  struct Angles {
    const float *cosines, *sines;
  };
  Angles AnglesOf(const KernelContext& context, int64_t row) const {
    const int64_t half = dims_ / 2;
    if (has_angles_) {
      const float* angles = context.input(1).as<float>() + row * dims_;
      return {angles, angles + half};
    }
    const int64_t at = row % positions_ * half;
    return {cosines_.data() + at, sines_.data() + at};
  }

  void RunHead(const Angles& angles, const float* x, float* y) const {
    const int64_t half = dims_ / 2;
    const auto [cosines, sines] = angles;
    const int64_t step = interleaved_ ? 2 : 1;
    const int64_t apart = interleaved_ ? 1 : half;
    for (int64_t i = 0; i < half; ++i) {
      const float first = x[i * step];
      const float second = x[i * step + apart];
      y[i * step] = first * cosines[i] - second * sines[i];
      y[i * step + apart] = second * cosines[i] + first * sines[i];
    }
    std::copy(x + dims_, x + d_, y + dims_);
  }

  const int64_t width_, d_, positions_, dims_;
  const bool interleaved_;
  const bool has_angles_;               // come with the rows
  std::vector<float> cosines_, sines_;  // [position, pair]
};

class RopeAngles final : public graph::Kernel {
 public:
  explicit RopeAngles(const graph::KernelRequest& request)
      : dims_(request.attributes->Int("dims")),
        magnitude_(request.attributes->Float("magnitude", 1)),
        frequencies_(ops::RopeFrequencies(dims_, *request.attributes)) {}

  void Run(const KernelContext& context) override {
    const auto* positions = context.input(0).as<int32_t>();
    float* angles = context.output(0).as<float>();
    ComputeLoop(context.input(0).elements(), RowGrain(64 * dims_), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        float* cosines = angles + row * dims_;
        float* sines = cosines + dims_ / 2;
        for (int64_t i = 0; i < dims_ / 2; ++i) {
          const double angle = static_cast<double>(positions[row]) * frequencies_[i];
          cosines[i] = static_cast<float>(magnitude_ * std::cos(angle));
          sines[i] = static_cast<float>(magnitude_ * std::sin(angle));
        }
      }
    });
  }

 private:
  const int64_t dims_;
  const double magnitude_;
  const std::vector<double> frequencies_;
};

}  // namespace

std::unique_ptr<graph::Kernel> CreateRopeAngles(const graph::KernelRequest& request) {
  return std::make_unique<RopeAngles>(request);
}

std::unique_ptr<graph::Kernel> CreateRope(const graph::KernelRequest& request) {
  return std::make_unique<Rope>(request);
}

}  // namespace lepton::kernels::transformer
