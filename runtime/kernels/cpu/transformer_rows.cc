#include <algorithm>
#include <cmath>
#include <vector>

#include "runtime/kernels/cpu/compute_loop.h"
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
        interleaved_(request.attributes->Int("interleaved") != 0) {
    const double sign = request.attributes->Int("inverse") != 0 ? -1 : 1;
    const auto offset = static_cast<double>(request.attributes->Int("offset"));
    const std::vector<double> frequencies = ops::RopeFrequencies(dims_, *request.attributes);
    for (int64_t position = 0; position < positions_; ++position) {
      for (const double frequency : frequencies) {
        const double angle = (offset + static_cast<double>(position)) * frequency;
        cosines_.push_back(static_cast<float>(std::cos(angle)));
        sines_.push_back(static_cast<float>(sign * std::sin(angle)));
      }
    }
  }

  void Run(const KernelContext& context) override {
    const float* x = context.input(0).as<float>();
    float* y = context.output(0).as<float>();
    ComputeLoop(context.input(0).shape().rows(), RowGrain(width_), [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        for (int64_t at = row * width_; at < (row + 1) * width_; at += d_) {
          RunHead(row % positions_, x + at, y + at);
        }
      }
    });
  }

 private:
  void RunHead(int64_t position, const float* x, float* y) const {
    const int64_t half = dims_ / 2;
    const float* cosines = cosines_.data() + position * half;
    const float* sines = sines_.data() + position * half;
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
  std::vector<float> cosines_, sines_;  // [position, pair]
};

}  // namespace

std::unique_ptr<graph::Kernel> CreateRope(const graph::KernelRequest& request) {
  return std::make_unique<Rope>(request);
}

void RmsNorm(const KernelContext& context) {
  const int64_t n = context.input(0).shape().back();
  const float* gain = context.input(1).as<float>();
  const double epsilon = context.attributes().Float("epsilon", 1e-6);
  ComputeLoop(context.input(0).shape().rows(), RowGrain(n), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* x = context.input(0).as<float>() + row * n;
      float* y = context.output(0).as<float>() + row * n;
      double squares = 0;
      for (int64_t i = 0; i < n; ++i) squares += double{x[i]} * x[i];
      const auto rstd =
          static_cast<float>(1 / std::sqrt(squares / static_cast<double>(n) + epsilon));
      for (int64_t i = 0; i < n; ++i) y[i] = x[i] * rstd * gain[i];
      context.output(1).as<float>()[row] = rstd;
    }
  });
}

void RmsNormGrad(const KernelContext& context) {
  const int64_t n = context.input(0).shape().back();
  const int64_t rows = context.input(0).shape().rows();
  const float* x = context.input(0).as<float>();
  const float* gain = context.input(1).as<float>();
  const float* rstd = context.input(2).as<float>();
  const float* dy = context.input(3).as<float>();
  float* dx = context.output(0).as<float>();
  ComputeLoop(rows, RowGrain(n), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = row * n;
      double sum = 0;
      for (int64_t i = 0; i < n; ++i) sum += double{dy[at + i]} * gain[i] * x[at + i];
      const auto mean = static_cast<float>(sum * rstd[row] / static_cast<double>(n));
      for (int64_t i = 0; i < n; ++i) {
        dx[at + i] = rstd[row] * (dy[at + i] * gain[i] - x[at + i] * rstd[row] * mean);
      }
    }
  });
  // By columns, so that each is summed in the order of the rows.
  ComputeLoop(n, std::max<int64_t>(16, RowGrain(rows)), [&](int64_t begin, int64_t end) {
    std::vector<double> sums(end - begin);
    for (int64_t row = 0; row < rows; ++row) {
      for (int64_t i = begin; i < end; ++i) {
        sums[i - begin] += double{dy[row * n + i]} * x[row * n + i] * rstd[row];
      }
    }
    for (int64_t i = begin; i < end; ++i) {
      context.output(1).as<float>()[i] = static_cast<float>(sums[i - begin]);
    }
  });
}

}  // namespace lepton::kernels::transformer
