#include <algorithm>
#include <cmath>
#include <vector>

#include "runtime/kernels/cpu/reference.h"

namespace lepton::kernels::reference {
namespace {

// softmax(row / temperature) and its logarithm.
void RowSoftmax(const float* row, int64_t n, double temperature, std::vector<double>& logs) {
  const double top = *std::max_element(row, row + n);
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += std::exp((row[i] - top) / temperature);
  logs.resize(n);
  for (int64_t i = 0; i < n; ++i) logs[i] = (row[i] - top) / temperature - std::log(sum);
}

}  // namespace

void CrossEntropy(const KernelContext& context) {
  const int64_t n = context.input(0).shape().back();
  std::vector<double> logs;
  for (int64_t row = 0; row < context.input(0).shape().rows(); ++row) {
    const int64_t label = context.input(1).as<int32_t>()[row];
    RowSoftmax(context.input(0).as<float>() + row * n, n, 1, logs);
    context.output(0).as<float>()[row] = label < 0 ? 0.0f : static_cast<float>(-logs[label]);
  }
}

void CrossEntropyGrad(const KernelContext& context) {
  const int64_t n = context.input(0).shape().back();
  std::vector<double> logs;
  for (int64_t row = 0; row < context.input(0).shape().rows(); ++row) {
    RowSoftmax(context.input(0).as<float>() + row * n, n, 1, logs);
    const int64_t label = context.input(1).as<int32_t>()[row];
    const double scale = label < 0 ? 0 : context.input(2).as<float>()[row];
    float* dx = context.output(0).as<float>() + row * n;
    for (int64_t i = 0; i < n; ++i) {
      dx[i] = static_cast<float>(scale * (std::exp(logs[i]) - (i == label ? 1 : 0)));
    }
  }
}

void BinaryCrossEntropy(const KernelContext& context) {
  const int64_t n = context.input(0).shape().back();
  for (int64_t row = 0; row < context.input(0).shape().rows(); ++row) {
    const float* z = context.input(0).as<float>() + row * n;
    const float* t = context.input(1).as<float>() + row * n;
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) {
      sum += std::max(double{z[i]}, 0.0) - double{z[i]} * t[i] +
             std::log1p(std::exp(-std::abs(double{z[i]})));
    }
    context.output(0).as<float>()[row] = static_cast<float>(sum / static_cast<double>(n));
  }
}

void BinaryCrossEntropyGrad(const KernelContext& context) {
  const int64_t n = context.input(0).shape().back();
  for (int64_t row = 0; row < context.input(0).shape().rows(); ++row) {
    const float* z = context.input(0).as<float>() + row * n;
    const float* t = context.input(1).as<float>() + row * n;
    float* dz = context.output(0).as<float>() + row * n;
    const double scale = context.input(2).as<float>()[row] / static_cast<double>(n);
    for (int64_t i = 0; i < n; ++i) {
      dz[i] = static_cast<float>(scale * (1 / (1 + std::exp(-double{z[i]})) - t[i]));
    }
  }
}

void MeanSquaredError(const KernelContext& context) {
  const int64_t n = context.input(0).shape().back();
  for (int64_t row = 0; row < context.input(0).shape().rows(); ++row) {
    const float* p = context.input(0).as<float>() + row * n;
    const float* t = context.input(1).as<float>() + row * n;
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += (double{p[i]} - t[i]) * (double{p[i]} - t[i]);
    context.output(0).as<float>()[row] = static_cast<float>(sum / static_cast<double>(n));
  }
}

void MeanSquaredErrorGrad(const KernelContext& context) {
  const int64_t n = context.input(0).shape().back();
  for (int64_t row = 0; row < context.input(0).shape().rows(); ++row) {
    const float* p = context.input(0).as<float>() + row * n;
    const float* t = context.input(1).as<float>() + row * n;
    float* dp = context.output(0).as<float>() + row * n;
    const double scale = 2 * context.input(2).as<float>()[row] / static_cast<double>(n);
    for (int64_t i = 0; i < n; ++i) dp[i] = static_cast<float>(scale * (double{p[i]} - t[i]));
  }
}

void Distillation(const KernelContext& context) {
  const int64_t n = context.input(0).shape().back();
  const double temperature = context.attributes().Float("temperature", 1);
  std::vector<double> student;
  std::vector<double> teacher;
  for (int64_t row = 0; row < context.input(0).shape().rows(); ++row) {
    RowSoftmax(context.input(0).as<float>() + row * n, n, temperature, student);
    RowSoftmax(context.input(1).as<float>() + row * n, n, temperature, teacher);
    double divergence = 0;
    for (int64_t i = 0; i < n; ++i) divergence += std::exp(teacher[i]) * (teacher[i] - student[i]);
    context.output(0).as<float>()[row] = static_cast<float>(temperature * temperature * divergence);
  }
}

// d/dz of T^2 KL(p || softmax(z / T)) = T (softmax(z / T) - p).
void DistillationGrad(const KernelContext& context) {
  const int64_t n = context.input(0).shape().back();
  const double temperature = context.attributes().Float("temperature", 1);
  std::vector<double> student;
  std::vector<double> teacher;
  for (int64_t row = 0; row < context.input(0).shape().rows(); ++row) {
    RowSoftmax(context.input(0).as<float>() + row * n, n, temperature, student);
    RowSoftmax(context.input(1).as<float>() + row * n, n, temperature, teacher);
    const double scale = temperature * context.input(2).as<float>()[row];
    float* dx = context.output(0).as<float>() + row * n;
    for (int64_t i = 0; i < n; ++i) {
      dx[i] = static_cast<float>(scale * (std::exp(student[i]) - std::exp(teacher[i])));
    }
  }
}

}  // namespace lepton::kernels::reference
