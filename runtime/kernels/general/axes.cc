#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/kernels/general/element_types.h"
#include "runtime/kernels/general/general_kernels.h"
#include "runtime/kernels/general/walk.h"

namespace lepton::kernels::general {
namespace {

constexpr int64_t kAxesGrain = 1 << 15;  // elements for which another thread is worth waking

// As std::less, with NaN above all else, so that sorting is well defined.
template <typename A>
bool Below(A a, A b) {
  if constexpr (std::is_floating_point_v<A>) {
    if (std::isnan(a) || std::isnan(b)) return !std::isnan(a) && std::isnan(b);
  }
  return a < b;
}

// Signed sums through unsigned, where overflow wraps.
template <typename Acc>
Acc Plus(Acc a, Acc b) {
  if constexpr (std::is_floating_point_v<Acc>) {
    return a + b;
  } else {
    return static_cast<Acc>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
  }
}

template <typename Acc>
Acc Times(Acc a, Acc b) {
  if constexpr (std::is_floating_point_v<Acc>) {
    return a * b;
  } else {
    return static_cast<Acc>(static_cast<uint64_t>(a) * static_cast<uint64_t>(b));
  }
}

template <typename Acc>
Acc Accumulate(const std::string& function, Acc sum, Acc x) {
  if (function == "prod") return Times(sum, x);
  if (function == "max") return Below(sum, x) ? x : sum;
  if (function == "min") return Below(x, sum) ? x : sum;
  if (function == "l1") return Plus(sum, x < Acc{0} ? Plus(Acc{0}, Times(x, Acc(-1))) : x);
  if (function == "sum_square") return Plus(sum, Times(x, x));
  return Plus(sum, x);
}

template <typename Acc>
Acc Start(const std::string& function) {
  using Limits = std::numeric_limits<Acc>;
  if (function == "prod") return Acc{1};
  if (function == "max") return Limits::has_infinity ? -Limits::infinity() : Limits::lowest();
  if (function == "min") return Limits::has_infinity ? Limits::infinity() : Limits::max();
  return Acc{0};
}

// x as [outer, reduced, inner] when the axes are neighbours.
struct ReducedView {
  ReducedView(const Shape& x, std::vector<int64_t> axes) {
    for (int64_t& axis : axes) axis += axis < 0 ? x.rank() : 0;
    std::sort(axes.begin(), axes.end());
    neighbours =
        !axes.empty() && axes.back() - axes.front() + 1 == static_cast<int64_t>(axes.size());
    for (int i = 0; i < x.rank() && neighbours; ++i) {
      (i < axes.front() ? outer : i <= axes.back() ? reduced : inner) *= x[i];
    }
  }
  bool neighbours = false;
  int64_t outer = 1, reduced = 1, inner = 1;
};

template <typename T, typename Acc, typename Step>
void ReduceNeighbours(const ReducedView& view, const T* x, std::vector<Acc>& sums,
                      const Step& step) {
  const int64_t grain = std::max<int64_t>(1, kAxesGrain / std::max<int64_t>(1, view.reduced));
  // Columns of one output row side by side; rows of the output over threads.
  ComputeLoop(view.outer * view.inner, grain, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t outer = begin / view.inner, column = begin % view.inner;
      const int64_t count = std::min(end - begin, view.inner - column);
      Acc* sum = sums.data() + begin;
      const T* from = x + outer * view.reduced * view.inner + column;
      for (int64_t i = 0; i < view.reduced; ++i, from += view.inner) {
        for (int64_t k = 0; k < count; ++k) sum[k] = step(sum[k], static_cast<Acc>(Load(from[k])));
      }
      begin += count;
    }
  });
}

template <typename T>
void ReduceTyped(const KernelContext& context, const std::string& function) {
  using Acc = Accumulator<T>;
  const Shape& from = context.input(0).shape();
  const Shape& to = context.output(0).shape();
  const T* x = context.input(0).as<T>();
  std::vector<Acc> sums(to.elements(), Start<Acc>(function));
  const ReducedView view(from, context.attributes().Ints("axes"));
  if (view.neighbours && (function == "sum" || function == "mean")) {
    ReduceNeighbours(view, x, sums, [](Acc sum, Acc next) { return Plus(sum, next); });
  } else if (view.neighbours && function == "max") {
    ReduceNeighbours(view, x, sums,
                     [](Acc sum, Acc next) { return Below(sum, next) ? next : sum; });
  } else if (view.neighbours) {
    ReduceNeighbours(view, x, sums,
                     [&](Acc sum, Acc next) { return Accumulate<Acc>(function, sum, next); });
  } else {
    // Of the reduced axes only: walking x, they stay where they are in y.
    std::vector<int64_t> strides = MemoryStrides(to);
    for (int64_t axis : context.attributes().Ints("axes")) {
      strides[axis < 0 ? axis + from.rank() : axis] = 0;
    }
    Walk<1>(from, std::array{strides}, [&](int64_t i, const std::array<int64_t, 1>& at) {
      sums[at[0]] = Accumulate<Acc>(function, sums[at[0]], static_cast<Acc>(Load(x[i])));
    });
  }
  const int64_t count = sums.empty() ? 1 : from.elements() / static_cast<int64_t>(sums.size());
  T* y = context.output(0).as<T>();
  for (size_t i = 0; i < sums.size(); ++i) {
    if (function == "mean" && (kFloating<T> || count > 0)) sums[i] /= static_cast<Acc>(count);
    y[i] = Store<T>(sums[i]);
  }
}

}  // namespace

void ReduceAxes(const KernelContext& context) {
  const std::string function = context.attributes().Text("function");
  VisitType(context.input(0).type.dtype, [&]<typename T>(TypeTag<T>) {
    if constexpr (!std::is_same_v<T, bool>) ReduceTyped<T>(context, function);
  });
}

void ArgExtreme(const KernelContext& context) {
  const AxisSplit split(context.input(0).shape(), context.attributes().Int("axis"));
  const bool largest = context.attributes().Int("largest") != 0;
  const bool last = context.attributes().Int("last") != 0;
  VisitType(context.input(0).type.dtype, [&]<typename T>(TypeTag<T>) {
    const T* x = context.input(0).as<T>();
    for (int64_t row = 0; row < split.outer * split.inner; ++row) {
      const int64_t first = row / split.inner * split.extent * split.inner + row % split.inner;
      int64_t best = 0;
      for (int64_t i = 1; i < split.extent; ++i) {
        const auto now = Load(x[first + best * split.inner]);
        const auto next = Load(x[first + i * split.inner]);
        const bool better = largest ? Below(now, next) : Below(next, now);
        if (better || (last && now == next)) best = i;
      }
      context.output(0).as<int64_t>()[row] = best;
    }
  });
}

void CumulativeSum(const KernelContext& context) {
  const AxisSplit split(context.input(0).shape(), context.attributes().Int("axis"));
  const bool exclusive = context.attributes().Int("exclusive") != 0;
  const bool reverse = context.attributes().Int("reverse") != 0;
  VisitType(context.input(0).type.dtype, [&]<typename T>(TypeTag<T>) {
    if constexpr (!std::is_same_v<T, bool>) {
      using Acc = Accumulator<T>;
      const T* x = context.input(0).as<T>();
      T* y = context.output(0).as<T>();
      for (int64_t row = 0; row < split.outer * split.inner; ++row) {
        const int64_t first = row / split.inner * split.extent * split.inner + row % split.inner;
        Acc sum = 0;
        for (int64_t i = 0; i < split.extent; ++i) {
          const int64_t at = first + (reverse ? split.extent - 1 - i : i) * split.inner;
          const Acc next = Plus(sum, static_cast<Acc>(Load(x[at])));
          y[at] = Store<T>(exclusive ? sum : next);
          sum = next;
        }
      }
    }
  });
}

void TopK(const KernelContext& context) {
  const AxisSplit split(context.input(0).shape(), context.attributes().Int("axis"));
  const bool largest = context.attributes().Int("largest") != 0;
  const int64_t k = context.attributes().Int("k");
  VisitType(context.input(0).type.dtype, [&]<typename T>(TypeTag<T>) {
    const T* x = context.input(0).as<T>();
    std::vector<int64_t> order(split.extent);
    for (int64_t row = 0; row < split.outer * split.inner; ++row) {
      const int64_t outer = row / split.inner;
      const int64_t inner = row % split.inner;
      const T* values = x + outer * split.extent * split.inner + inner;
      std::iota(order.begin(), order.end(), int64_t{0});
      std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
        const auto left = Load(values[a * split.inner]);
        const auto right = Load(values[b * split.inner]);
        return largest ? Below(right, left) : Below(left, right);
      });
      for (int64_t i = 0; i < k; ++i) {
        const int64_t at = (outer * k + i) * split.inner + inner;
        context.output(0).as<T>()[at] = values[order[i] * split.inner];
        context.output(1).as<int64_t>()[at] = order[i];
      }
    }
  });
}

void GeneralMatmul(const KernelContext& context) {
  const Shape& a = context.input(0).shape();
  const Shape& b = context.input(1).shape();
  const Shape& out = context.output(0).shape();
  const int64_t m = a[a.rank() - 2], k = a.back(), n = b.back();
  const auto leading = [](const Shape& shape) {
    return Shape({shape.extents().begin(), shape.extents().end() - 2});
  };
  const std::array strides = {RepeatStrides(leading(a), leading(out)),
                              RepeatStrides(leading(b), leading(out))};
  VisitType(context.input(0).type.dtype, [&]<typename T>(TypeTag<T>) {
    if constexpr (!std::is_same_v<T, bool> && !kHalf<T>) {
      using Acc = Accumulator<T>;
      Walk<2>(leading(out), strides, [&](int64_t batch, const std::array<int64_t, 2>& at) {
        const T* left = context.input(0).as<T>() + at[0] * m * k;
        const T* right = context.input(1).as<T>() + at[1] * k * n;
        T* y = context.output(0).as<T>() + batch * m * n;
        const int64_t grain = std::max<int64_t>(1, kAxesGrain / std::max<int64_t>(1, k * n));
        ComputeLoop(m, grain, [&](int64_t begin, int64_t end) {
          std::vector<Acc> sums(n);
          for (int64_t row = begin; row < end; ++row) {
            std::fill(sums.begin(), sums.end(), Acc{0});
            for (int64_t i = 0; i < k; ++i) {
              const Acc factor = static_cast<Acc>(left[row * k + i]);
              for (int64_t j = 0; j < n; ++j) {
                sums[j] = Plus(sums[j], Times(factor, static_cast<Acc>(right[i * n + j])));
              }
            }
            for (int64_t j = 0; j < n; ++j) y[row * n + j] = Store<T>(sums[j]);
          }
        });
      });
    }
  });
}

}  // namespace lepton::kernels::general
