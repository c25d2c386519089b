#include "runtime/kernels/cpu/shape_kernels.h"

#include <cstring>

#include "runtime/kernels/cpu/gather_view.h"

namespace lepton::kernels::shape {
namespace {

using graph::KernelContext;

constexpr int64_t kGrain = 1 << 15;  // elements for which another thread is worth waking

template <typename T>
void CopyElements(const KernelContext& context, int64_t start,
                  const std::vector<int64_t>& strides) {
  const Shape& shape = context.output(0).shape();
  const T* x = context.input(0).as<T>() + start;
  T* y = context.output(0).as<T>();
  const StridedLoop<2> loop(shape, {strides, DenseStrides(shape)});
  loop.Run([&](const auto& offset, int64_t count, const auto& step) {
    if (step[0] == 1 && step[1] == 1) {
      std::memcpy(y + offset[1], x + offset[0], count * sizeof(T));
      return;
    }
    for (int64_t i = 0; i < count; ++i) y[offset[1] + i * step[1]] = x[offset[0] + i * step[0]];
  });
}

void Copy(const KernelContext& context, int64_t start, const std::vector<int64_t>& strides) {
  if (DTypeSize(context.input(0).type.dtype) == 2) {
    CopyElements<uint16_t>(context, start, strides);
  } else {
    CopyElements<uint32_t>(context, start, strides);
  }
}

}  // namespace

void Transpose(const KernelContext& context) {
  Copy(context, 0, TransposedStrides(context.input(0).shape(), context.attributes().Ints("perm")));
}

void Slice(const KernelContext& context) {
  const SliceWalk walk(context.input(0).shape(), context.attributes());
  Copy(context, walk.offset, walk.strides);
}

void Gather(const KernelContext& context) {
  const GatherView view(context.input(0).shape(), context.input(1), context.attributes());
  const TensorView& x = context.input(0);
  const size_t bytes = view.inner * DTypeSize(x.type.dtype);
  ComputeLoop(view.outer * view.count, std::max<int64_t>(1, kGrain / view.inner),
              [&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) {
                  char* y = context.output(0).as<char>() + i * bytes;
                  const int64_t row = view.Row(i % view.count);
                  const int64_t from = i / view.count * view.extent + row;
                  if (row >= 0) {
                    std::memcpy(y, x.as<char>() + from * bytes, bytes);
                  } else {
                    FillMissing(x.type.dtype, view.inner, y);
                  }
                }
              });
}

// A thread takes some columns and goes through all indices, so additions keep their order.
void GatherGrad(const KernelContext& context) {
  const GatherView view(context.output(0).shape(), context.input(1), context.attributes());
  const float* dy = context.input(0).as<float>();
  float* dx = context.output(0).as<float>();
  const int64_t rows = view.outer * (view.count + view.extent);
  ComputeLoop(view.inner, std::max<int64_t>(16, kGrain / rows), [&](int64_t begin, int64_t end) {
    for (int64_t row = 0; row < view.outer * view.extent; ++row) {
      std::fill(dx + row * view.inner + begin, dx + row * view.inner + end, 0.0f);
    }
    for (int64_t i = 0; i < view.outer * view.count; ++i) {
      const int64_t row = view.Row(i % view.count);
      if (row < 0) continue;
      const float* from = dy + i * view.inner;
      float* to = dx + (i / view.count * view.extent + row) * view.inner;
      for (int64_t j = begin; j < end; ++j) to[j] += from[j];
    }
  });
}

}  // namespace lepton::kernels::shape
