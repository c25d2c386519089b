#include "runtime/kernels/cpu/reference.h"
#include "runtime/kernels/cpu/strided.h"

namespace lepton::kernels::reference {
namespace {

// Where an element of `large`, by its position, comes from in a tensor repeated to it.
int64_t Source(int64_t position, const Shape& large, const std::vector<int64_t>& strides) {
  int64_t source = 0;
  for (int axis = large.rank() - 1; axis >= 0; --axis) {
    source += position % large[axis] * strides[axis];
    position /= large[axis];
  }
  return source;
}

template <typename Function>
void Broadcast(const KernelContext& context, Function function) {
  const Shape& shape = context.output(0).shape();
  const auto strides_a = BroadcastStrides(context.input(0).shape(), shape);
  const auto strides_b = BroadcastStrides(context.input(1).shape(), shape);
  const float* a = context.input(0).as<float>();
  const float* b = context.input(1).as<float>();
  float* y = context.output(0).as<float>();
  for (int64_t i = 0; i < shape.elements(); ++i) {
    y[i] = static_cast<float>(
        function(double{a[Source(i, shape, strides_a)]}, double{b[Source(i, shape, strides_b)]}));
  }
}

}  // namespace

void Add(const KernelContext& context) {
  Broadcast(context, [](double a, double b) { return a + b; });
}

void Sub(const KernelContext& context) {
  Broadcast(context, [](double a, double b) { return a - b; });
}

void Mul(const KernelContext& context) {
  Broadcast(context, [](double a, double b) { return a * b; });
}

void Div(const KernelContext& context) {
  Broadcast(context, [](double a, double b) { return a / b; });
}

void BroadcastTo(const KernelContext& context) {
  const Shape& shape = context.output(0).shape();
  const auto strides = BroadcastStrides(context.input(0).shape(), shape);
  for (int64_t i = 0; i < shape.elements(); ++i) {
    context.output(0).as<float>()[i] = context.input(0).as<float>()[Source(i, shape, strides)];
  }
}

void SumTo(const KernelContext& context) {
  const Shape& shape = context.input(0).shape();
  const auto strides = BroadcastStrides(context.output(0).shape(), shape);
  std::vector<double> sums(context.output(0).elements());
  for (int64_t i = 0; i < shape.elements(); ++i) {
    sums[Source(i, shape, strides)] += context.input(0).as<float>()[i];
  }
  for (size_t i = 0; i < sums.size(); ++i) {
    context.output(0).as<float>()[i] = static_cast<float>(sums[i]);
  }
}

}  // namespace lepton::kernels::reference
