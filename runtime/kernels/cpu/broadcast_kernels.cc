#include "runtime/kernels/cpu/broadcast_kernels.h"

#include "runtime/kernels/cpu/simd/loops.h"
#include "runtime/kernels/cpu/strided.h"

namespace lepton::kernels::broadcast {
namespace {

using graph::KernelContext;
using graph::KernelRequest;

// The usual rows are spelt out, for the compiler to make vector code of.
template <typename Function>
void Row(int64_t count, const float* a, int64_t step_a, const float* b, int64_t step_b, float* y,
         Function function) {
  if (step_a == 1 && step_b == 1) {
    for (int64_t i = 0; i < count; ++i) y[i] = function(a[i], b[i]);
  } else if (step_a == 1 && step_b == 0) {
    const float constant = *b;
    for (int64_t i = 0; i < count; ++i) y[i] = function(a[i], constant);
  } else if (step_a == 0 && step_b == 1) {
    const float constant = *a;
    for (int64_t i = 0; i < count; ++i) y[i] = function(constant, b[i]);
  } else {
    for (int64_t i = 0; i < count; ++i) y[i] = function(a[i * step_a], b[i * step_b]);
  }
}

template <typename Function>
void Binary(const KernelContext& context, Function function) {
  const Shape& shape = context.output(0).shape();
  const StridedLoop<3> loop(
      shape, {BroadcastStrides(context.input(0).shape(), shape),
              BroadcastStrides(context.input(1).shape(), shape), DenseStrides(shape)});
  const float* a = context.input(0).as<float>();
  const float* b = context.input(1).as<float>();
  float* y = context.output(0).as<float>();
  loop.Run([&](const auto& offset, int64_t count, const auto& step) {
    Row(count, a + offset[0], step[0], b + offset[1], step[1], y + offset[2], function);
  });
}

Shape WithoutLeadingOnes(const Shape& shape) {
  const auto& extents = shape.extents();
  const auto first =
      std::find_if(extents.begin(), extents.end(), [](int64_t extent) { return extent != 1; });
  return Shape(std::vector<int64_t>(first, extents.end()));
}

}  // namespace

void Add(const KernelContext& context) {
  Binary(context, [](float a, float b) { return a + b; });
}

void Sub(const KernelContext& context) {
  Binary(context, [](float a, float b) { return a - b; });
}

void Mul(const KernelContext& context) {
  Binary(context, [](float a, float b) { return a * b; });
}

void Div(const KernelContext& context) {
  Binary(context, [](float a, float b) { return a / b; });
}

void BroadcastTo(const KernelContext& context) {
  const Shape& shape = context.output(0).shape();
  const StridedLoop<2> loop(
      shape, {BroadcastStrides(context.input(0).shape(), shape), DenseStrides(shape)});
  const float* x = context.input(0).as<float>();
  float* y = context.output(0).as<float>();
  loop.Run([&](const auto& offset, int64_t count, const auto& step) {
    for (int64_t i = 0; i < count; ++i) y[offset[1] + i] = x[offset[0] + i * step[0]];
  });
}

bool CanSumLeadingAxes(const KernelRequest& request) {
  const auto& large = request.inputs[0].shape.extents();
  const Shape small = WithoutLeadingOnes(request.outputs[0].shape);
  return small.rank() > 0 && static_cast<int>(large.size()) > small.rank() &&
         std::equal(small.extents().rbegin(), small.extents().rend(), large.rbegin());
}

void SumLeadingAxes(const KernelContext& context) {
  const int64_t n = context.output(0).elements();
  const int64_t rows = context.input(0).elements() / n;
  constexpr int64_t kColumns = 64;  // that one thread takes at a time
  ComputeLoop((n + kColumns - 1) / kColumns, 1, [&](int64_t begin, int64_t end) {
    simd::BestLoops().column_sum(rows, n, begin * kColumns, std::min(n, end * kColumns), 1.0f,
                                 context.input(0).as<float>(), context.output(0).as<float>());
  });
}

}  // namespace lepton::kernels::broadcast
