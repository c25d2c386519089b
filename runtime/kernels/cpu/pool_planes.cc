#include <algorithm>
#include <cmath>

#include "runtime/kernels/cpu/image_kernels.h"
#include "runtime/ops/window.h"

namespace lepton::kernels::image {
namespace {

using graph::KernelContext;

// What one window covers of a plane, as steps of the window that lie inside.
struct Covered {
  Covered(const ops::WindowAxis& axis, int64_t output, int64_t extent)
      : start(output * axis.stride - axis.before), step(axis.dilation) {
    first = start >= 0 ? 0 : (-start + step - 1) / step;
    last = std::min(axis.extent, (extent - start + step - 1) / step);
  }
  int64_t At(int64_t i) const { return start + i * step; }
  int64_t count() const { return std::max<int64_t>(0, last - first); }
  int64_t start, step, first, last;
};

struct PoolShape {
  PoolShape(const Shape& x, const graph::Attributes& attributes)
      : h(x[2]), w(x[3]), include_pad(attributes.Int("include_pad", 1) != 0) {
    const auto kernel = attributes.Ints("kernel");
    window = ops::MakeWindow(kernel[0], kernel[1], attributes);
    out_h = window.h.Outputs(h);
    out_w = window.w.Outputs(w);
  }
  // function(index in the plane of y, rows, columns) for each window.
  template <typename Function>
  void ForWindows(Function function) const {
    for (int64_t i = 0; i < out_h; ++i) {
      const Covered rows(window.h, i, h);
      for (int64_t j = 0; j < out_w; ++j) function(i * out_w + j, rows, Covered(window.w, j, w));
    }
  }
  double Divisor(const Covered& rows, const Covered& columns) const {
    const int64_t all = window.h.extent * window.w.extent;
    return static_cast<double>(include_pad ? all
                                           : std::max<int64_t>(1, rows.count() * columns.count()));
  }

  int64_t h, w;
  bool include_pad;
  ops::Window window;
  int64_t out_h, out_w;
};

// The first of the largest elements; a NaN is larger than everything. -1 for an empty window.
int64_t Largest(const float* x, int64_t width, const Covered& rows, const Covered& columns) {
  int64_t best = -1;
  for (int64_t i = rows.first; i < rows.last; ++i) {
    for (int64_t j = columns.first; j < columns.last; ++j) {
      const int64_t here = rows.At(i) * width + columns.At(j);
      const bool wins =
          best < 0 || x[here] > x[best] || (std::isnan(x[here]) && !std::isnan(x[best]));
      if (wins) best = here;
    }
  }
  return best;
}

}  // namespace

void MaxPool(const KernelContext& context, int64_t begin, int64_t end) {
  const PoolShape shape(context.input(0).shape(), context.attributes());
  for (int64_t plane = begin; plane < end; ++plane) {
    const float* x = context.input(0).as<float>() + plane * shape.h * shape.w;
    float* y = context.output(0).as<float>() + plane * shape.out_h * shape.out_w;
    shape.ForWindows([&](int64_t out, const Covered& rows, const Covered& columns) {
      const int64_t best = Largest(x, shape.w, rows, columns);
      y[out] = best < 0 ? -INFINITY : x[best];
    });
  }
}

void MaxPoolGrad(const KernelContext& context, int64_t begin, int64_t end) {
  const PoolShape shape(context.input(0).shape(), context.attributes());
  for (int64_t plane = begin; plane < end; ++plane) {
    const float* x = context.input(0).as<float>() + plane * shape.h * shape.w;
    const float* dy = context.input(1).as<float>() + plane * shape.out_h * shape.out_w;
    float* dx = context.output(0).as<float>() + plane * shape.h * shape.w;
    std::fill_n(dx, shape.h * shape.w, 0.0f);
    shape.ForWindows([&](int64_t out, const Covered& rows, const Covered& columns) {
      const int64_t best = Largest(x, shape.w, rows, columns);
      if (best >= 0) dx[best] += dy[out];
    });
  }
}

void AveragePool(const KernelContext& context, int64_t begin, int64_t end) {
  const PoolShape shape(context.input(0).shape(), context.attributes());
  for (int64_t plane = begin; plane < end; ++plane) {
    const float* x = context.input(0).as<float>() + plane * shape.h * shape.w;
    float* y = context.output(0).as<float>() + plane * shape.out_h * shape.out_w;
    shape.ForWindows([&](int64_t out, const Covered& rows, const Covered& columns) {
      double sum = 0;
      for (int64_t i = rows.first; i < rows.last; ++i) {
        for (int64_t j = columns.first; j < columns.last; ++j) {
          sum += x[rows.At(i) * shape.w + columns.At(j)];
        }
      }
      y[out] = static_cast<float>(sum / shape.Divisor(rows, columns));
    });
  }
}

void AveragePoolGrad(const KernelContext& context, int64_t begin, int64_t end) {
  const PoolShape shape(context.input(1).shape(), context.attributes());
  for (int64_t plane = begin; plane < end; ++plane) {
    const float* dy = context.input(0).as<float>() + plane * shape.out_h * shape.out_w;
    float* dx = context.output(0).as<float>() + plane * shape.h * shape.w;
    std::fill_n(dx, shape.h * shape.w, 0.0f);
    shape.ForWindows([&](int64_t out, const Covered& rows, const Covered& columns) {
      const auto share = static_cast<float>(dy[out] / shape.Divisor(rows, columns));
      for (int64_t i = rows.first; i < rows.last; ++i) {
        for (int64_t j = columns.first; j < columns.last; ++j) {
          dx[rows.At(i) * shape.w + columns.At(j)] += share;
        }
      }
    });
  }
}

}  // namespace lepton::kernels::image
