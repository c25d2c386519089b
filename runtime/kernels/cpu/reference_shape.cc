#include <cmath>
#include <cstring>

#include "runtime/kernels/cpu/gather_view.h"
#include "runtime/kernels/cpu/reference.h"
#include "runtime/kernels/cpu/strided.h"

namespace lepton::kernels::reference {
namespace {

// function(position in `shape`, position in an array walked with `strides` from `offset`).
template <typename Function>
void Walk(const Shape& shape, const std::vector<int64_t>& strides, int64_t offset,
          Function function) {
  for (int64_t i = 0; i < shape.elements(); ++i) {
    int64_t rest = i;
    int64_t there = offset;
    for (int axis = shape.rank() - 1; axis >= 0; --axis) {
      there += rest % shape[axis] * strides[axis];
      rest /= shape[axis];
    }
    function(i, there);
  }
}

void Gathered(const KernelContext& context, int64_t offset, const std::vector<int64_t>& strides) {
  const size_t bytes = DTypeSize(context.input(0).type.dtype);
  const char* x = context.input(0).as<char>();
  char* y = context.output(0).as<char>();
  Walk(context.output(0).shape(), strides, offset, [&](int64_t here, int64_t there) {
    std::memcpy(y + here * bytes, x + there * bytes, bytes);
  });
}

}  // namespace

void Reshape(const KernelContext& context) {
  std::memcpy(context.output(0).data, context.input(0).data, context.input(0).type.bytes());
}

void TensorCopy(const KernelContext& context) {
  Reshape(context);
}

void TensorSum(const KernelContext& context) {
  if (context.run().tensor == nullptr) return Reshape(context);
  context.run().tensor->AllReduce(context.input(0).as<float>(), context.output(0).as<float>(),
                                  static_cast<size_t>(context.input(0).shape().elements()));
}

void Transpose(const KernelContext& context) {
  Gathered(context, 0,
           TransposedStrides(context.input(0).shape(), context.attributes().Ints("perm")));
}

void Slice(const KernelContext& context) {
  const SliceWalk walk(context.input(0).shape(), context.attributes());
  Gathered(context, walk.offset, walk.strides);
}

void SliceGrad(const KernelContext& context) {
  const SliceWalk walk(context.output(0).shape(), context.attributes());
  const float* dy = context.input(0).as<float>();
  float* dx = context.output(0).as<float>();
  std::memset(dx, 0, context.output(0).type.bytes());
  Walk(context.input(0).shape(), walk.strides, walk.offset,
       [&](int64_t here, int64_t there) { dx[there] = dy[here]; });
}

void Concat(const KernelContext& context) {
  const TensorView& y = context.output(0);
  const int64_t axis = context.attributes().Int("axis");
  const size_t element = DTypeSize(y.type.dtype);
  const auto block = [&](const Shape& shape) {
    size_t bytes = element;
    for (int i = static_cast<int>(axis); i < shape.rank(); ++i) bytes *= shape[i];
    return bytes;
  };
  const size_t stride = block(y.shape());
  size_t place = 0;
  for (int i = 0; i < context.inputs(); ++i) {
    const TensorView& x = context.input(i);
    const size_t bytes = block(x.shape());
    const size_t blocks = x.type.bytes() / bytes;
    for (size_t outer = 0; outer < blocks; ++outer) {
      std::memcpy(y.as<char>() + outer * stride + place, x.as<char>() + outer * bytes, bytes);
    }
    place += bytes;
  }
}

void Gather(const KernelContext& context) {
  const GatherView view(context.input(0).shape(), context.input(1), context.attributes());
  const TensorView& x = context.input(0);
  const size_t bytes = view.inner * DTypeSize(x.type.dtype);
  for (int64_t outer = 0; outer < view.outer; ++outer) {
    for (int64_t i = 0; i < view.count; ++i) {
      char* y = context.output(0).as<char>() + (outer * view.count + i) * bytes;
      const int64_t row = view.Row(i);
      if (row >= 0) {
        std::memcpy(y, x.as<char>() + (outer * view.extent + row) * bytes, bytes);
      } else {
        FillMissing(x.type.dtype, view.inner, y);
      }
    }
  }
}

void GatherGrad(const KernelContext& context) {
  const GatherView view(context.output(0).shape(), context.input(1), context.attributes());
  std::vector<double> sums(context.output(0).elements());
  const float* dy = context.input(0).as<float>();
  for (int64_t outer = 0; outer < view.outer; ++outer) {
    for (int64_t i = 0; i < view.count; ++i) {
      const int64_t row = view.Row(i);
      if (row < 0) continue;
      for (int64_t j = 0; j < view.inner; ++j) {
        sums[(outer * view.extent + row) * view.inner + j] +=
            dy[(outer * view.count + i) * view.inner + j];
      }
    }
  }
  for (size_t i = 0; i < sums.size(); ++i) {
    context.output(0).as<float>()[i] = static_cast<float>(sums[i]);
  }
}

}  // namespace lepton::kernels::reference
