#include "runtime/kernels/cpu/shape_kernels.h"

#include <algorithm>
#include <cstring>

#include "runtime/kernels/cpu/gather_view.h"
#include "runtime/kernels/cpu/simd/loops.h"

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

// The output's rows along the axis, each of them copied or zero.
void SliceGrad(const KernelContext& context) {
  const graph::Attributes& attributes = context.attributes();
  const Shape& shape = context.output(0).shape();
  const int axis = static_cast<int>(attributes.Int("axis"));
  const int64_t begin = attributes.Int("begin"), step = attributes.Int("step", 1);
  const int64_t extent = shape[axis], taken = context.input(0).shape()[axis];
  int64_t inner = 1;
  for (int i = axis + 1; i < shape.rank(); ++i) inner *= shape[i];
  const int64_t outer = shape.elements() / std::max<int64_t>(1, extent * inner);
  const float* dy = context.input(0).as<float>();
  float* dx = context.output(0).as<float>();
  const auto rows = [&](int64_t block, int64_t from, int64_t to) {
    std::fill(dx + (block * extent + from) * inner, dx + (block * extent + to) * inner, 0.0f);
    if (step == 1) {
      const int64_t first = std::max(from, begin), last = std::min(to, begin + taken);
      if (first >= last) return;
      const float* source = dy + (block * taken + first - begin) * inner;
      std::copy_n(source, (last - first) * inner, dx + (block * extent + first) * inner);
      return;
    }
    for (int64_t i = 0; i < taken; ++i) {
      const int64_t row = begin + i * step;
      if (row < from || row >= to) continue;
      std::copy_n(dy + (block * taken + i) * inner, inner, dx + (block * extent + row) * inner);
    }
  };
  if (outer > 1) {
    ComputeLoop(outer, std::max<int64_t>(1, kGrain / (extent * inner)),
                [&](int64_t first, int64_t last) {
                  for (int64_t block = first; block < last; ++block) rows(block, 0, extent);
                });
  } else {
    ComputeLoop(extent, std::max<int64_t>(1, kGrain / inner),
                [&](int64_t first, int64_t last) { rows(0, first, last); });
  }
}

namespace {

// Elements of x as they are, or of halves in f32 (KernelEntry::widens).
void CopyRow(const TensorView& x, int64_t begin, int64_t count, DType type, void* y) {
  const size_t size = DTypeSize(x.type.dtype);
  const char* const from = x.as<char>() + begin * static_cast<int64_t>(size);
  const auto* const halves = reinterpret_cast<const uint16_t*>(from);
  if (x.type.dtype == type) {
    std::memcpy(y, from, count * size);
  } else if (x.type.dtype == DType::kBF16) {
    simd::BestLoops().to_f32(count, halves, static_cast<float*>(y));
  } else {
    for (int64_t i = 0; i < count; ++i) static_cast<float*>(y)[i] = F16::ToFloat({halves[i]});
  }
}

}  // namespace

void Gather(const KernelContext& context) {
  const GatherView view(context.input(0).shape(), context.input(1), context.attributes());
  const TensorView& x = context.input(0);
  const DType type = context.output(0).type.dtype;
  const size_t bytes = view.inner * DTypeSize(type);
  ComputeLoop(view.outer * view.count, std::max<int64_t>(1, kGrain / view.inner),
              [&](int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) {
                  char* y = context.output(0).as<char>() + i * bytes;
                  const int64_t row = view.Row(i % view.count);
                  const int64_t from = i / view.count * view.extent + row;
                  if (row >= 0) {
                    CopyRow(x, from * view.inner, view.inner, type, y);
                  } else {
                    FillMissing(type, view.inner, y);
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
