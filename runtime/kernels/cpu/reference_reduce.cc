#include "runtime/kernels/cpu/reference.h"

namespace lepton::kernels::reference {
namespace {

// A shape seen from one axis: [outer, extent, inner].
struct AxisView {
  AxisView(const Shape& shape, int64_t axis) {
    for (int i = 0; i < shape.rank(); ++i) {
      (i < axis ? outer : i == axis ? extent : inner) *= shape[i];
    }
  }
  int64_t outer = 1;
  int64_t extent = 1;
  int64_t inner = 1;
};

}  // namespace

void Reduce(const KernelContext& context) {
  const AxisView view(context.input(0).shape(), context.attributes().Int("axis"));
  const bool mean = context.attributes().Text("kind") == "mean";
  const float* x = context.input(0).as<float>();
  float* y = context.output(0).as<float>();
  for (int64_t outer = 0; outer < view.outer; ++outer) {
    for (int64_t inner = 0; inner < view.inner; ++inner) {
      double sum = 0;
      for (int64_t k = 0; k < view.extent; ++k) {
        sum += x[(outer * view.extent + k) * view.inner + inner];
      }
      if (mean) sum /= static_cast<double>(view.extent);
      y[outer * view.inner + inner] = static_cast<float>(sum);
    }
  }
}

void Expand(const KernelContext& context) {
  const AxisView view(context.output(0).shape(), context.attributes().Int("axis"));
  const bool divide = context.attributes().Int("divide") != 0;
  const double divisor = divide ? static_cast<double>(view.extent) : 1.0;
  const float* x = context.input(0).as<float>();
  float* y = context.output(0).as<float>();
  for (int64_t outer = 0; outer < view.outer; ++outer) {
    for (int64_t k = 0; k < view.extent; ++k) {
      for (int64_t inner = 0; inner < view.inner; ++inner) {
        y[(outer * view.extent + k) * view.inner + inner] =
            static_cast<float>(x[outer * view.inner + inner] / divisor);
      }
    }
  }
}

void SumRows(const KernelContext& context) {
  const int64_t n = context.input(0).shape().back();
  for (int64_t column = 0; column < n; ++column) {
    double sum = 0;
    for (int64_t row = 0; row < context.input(0).shape().rows(); ++row) {
      sum += context.input(0).as<float>()[row * n + column];
    }
    context.output(0).as<float>()[column] = static_cast<float>(sum);
  }
}

}  // namespace lepton::kernels::reference
