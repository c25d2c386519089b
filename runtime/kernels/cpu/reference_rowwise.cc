#include <algorithm>
#include <cmath>

#include "runtime/kernels/cpu/reference.h"

namespace lepton::kernels::reference {
namespace {

// log(sum(exp(row))), safe for large values.
double LogSumExp(const float* row, int64_t n) {
  const double top = *std::max_element(row, row + n);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp(row[i] - top);
  return top + std::log(sum);
}

}  // namespace

void LayerNorm(const KernelContext& context) {
  const int64_t n = context.input(0).shape().back();
  const float* gain = context.input(1).as<float>();
  const float* bias = context.input(2).as<float>();
  const double epsilon = context.attributes().Float("epsilon", 1e-5);
  for (int64_t row = 0; row < context.input(0).shape().rows(); ++row) {
    const float* x = context.input(0).as<float>() + row * n;
    float* y = context.output(0).as<float>() + row * n;
    double mean = 0;
    for (int64_t i = 0; i < n; ++i) mean += x[i];
    mean /= static_cast<double>(n);
    double variance = 0;
    for (int64_t i = 0; i < n; ++i) variance += (x[i] - mean) * (x[i] - mean);
    const double rstd = 1 / std::sqrt(variance / static_cast<double>(n) + epsilon);
    for (int64_t i = 0; i < n; ++i) {
      y[i] = static_cast<float>((x[i] - mean) * rstd * gain[i] + bias[i]);
    }
    context.output(1).as<float>()[row] = static_cast<float>(mean);
    context.output(2).as<float>()[row] = static_cast<float>(rstd);
  }
}

// With h = (x - mean) * rstd and g = dy * gain: dx = rstd * (g - mean(g) - h * mean(g * h)).
void LayerNormGrad(const KernelContext& context) {
  const int64_t n = context.input(0).shape().back();
  const int64_t rows = context.input(0).shape().rows();
  const float* gain = context.input(1).as<float>();
  std::vector<double> gain_gradient(n);
  std::vector<double> bias_gradient(n);
  for (int64_t row = 0; row < rows; ++row) {
    const float* x = context.input(0).as<float>() + row * n;
    const float* dy = context.input(4).as<float>() + row * n;
    float* dx = context.output(0).as<float>() + row * n;
    const double mean = context.input(2).as<float>()[row];
    const double rstd = context.input(3).as<float>()[row];
    double mean_g = 0;
    double mean_gh = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double h = (x[i] - mean) * rstd;
      mean_g += dy[i] * gain[i] / static_cast<double>(n);
      mean_gh += dy[i] * gain[i] * h / static_cast<double>(n);
      gain_gradient[i] += dy[i] * h;
      bias_gradient[i] += dy[i];
    }
    for (int64_t i = 0; i < n; ++i) {
      const double h = (x[i] - mean) * rstd;
      dx[i] = static_cast<float>(rstd * (dy[i] * gain[i] - mean_g - h * mean_gh));
    }
  }
  for (int64_t i = 0; i < n; ++i) {
    context.output(1).as<float>()[i] = static_cast<float>(gain_gradient[i]);
    context.output(2).as<float>()[i] = static_cast<float>(bias_gradient[i]);
  }
}

void LogSoftmax(const KernelContext& context) {
  const int64_t n = context.input(0).shape().back();
  for (int64_t row = 0; row < context.input(0).shape().rows(); ++row) {
    const float* x = context.input(0).as<float>() + row * n;
    float* y = context.output(0).as<float>() + row * n;
    const double normalizer = LogSumExp(x, n);
    for (int64_t i = 0; i < n; ++i) y[i] = static_cast<float>(x[i] - normalizer);
  }
}

void Softmax(const KernelContext& context) {
  const int64_t n = context.input(0).shape().back();
  for (int64_t row = 0; row < context.input(0).shape().rows(); ++row) {
    const float* x = context.input(0).as<float>() + row * n;
    float* y = context.output(0).as<float>() + row * n;
    const double normalizer = LogSumExp(x, n);
    for (int64_t i = 0; i < n; ++i) y[i] = static_cast<float>(std::exp(x[i] - normalizer));
  }
}

void SoftmaxGrad(const KernelContext& context) {
  const int64_t n = context.input(0).shape().back();
  for (int64_t row = 0; row < context.input(0).shape().rows(); ++row) {
    const float* y = context.input(0).as<float>() + row * n;
    const float* dy = context.input(1).as<float>() + row * n;
    float* dx = context.output(0).as<float>() + row * n;
    double dot = 0;
    for (int64_t i = 0; i < n; ++i) dot += double{y[i]} * dy[i];
    for (int64_t i = 0; i < n; ++i) dx[i] = static_cast<float>(y[i] * (dy[i] - dot));
  }
}

void LogSoftmaxGrad(const KernelContext& context) {
  const int64_t n = context.input(0).shape().back();
  for (int64_t row = 0; row < context.input(0).shape().rows(); ++row) {
    const float* y = context.input(0).as<float>() + row * n;
    const float* dy = context.input(1).as<float>() + row * n;
    float* dx = context.output(0).as<float>() + row * n;
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += dy[i];
    for (int64_t i = 0; i < n; ++i) dx[i] = static_cast<float>(dy[i] - std::exp(y[i]) * sum);
  }
}

}  // namespace lepton::kernels::reference
