#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "runtime/kernels/cpu/gather_view.h"
#include "runtime/kernels/general/element_types.h"
#include "runtime/kernels/general/general_kernels.h"
#include "runtime/kernels/general/walk.h"

namespace lepton::kernels::general {
namespace {

constexpr int64_t kMoveGrain = 1 << 15;  // elements for which another thread is worth waking

template <typename To, typename From>
To ConvertOne(From value) {
  if constexpr (std::is_same_v<To, bool>) {
    return value != From{0};
  } else if constexpr (std::is_integral_v<To> && std::is_floating_point_v<From>) {
    if (std::isnan(value)) return To{0};
    constexpr auto kMost = std::numeric_limits<To>::max();
    constexpr auto kLeast = std::numeric_limits<To>::lowest();
    // The highest integers are not exact in floating point, but the next power of two is.
    if (value >= static_cast<From>(kMost)) return kMost;
    if (value <= static_cast<From>(kLeast)) return kLeast;
    return static_cast<To>(value);
  } else {
    return Store<To>(value);
  }
}

// Where an index points to on an axis; -1: outside.
int64_t Locate(int64_t index, int64_t extent) {
  if (index < 0) index += extent;
  return index >= 0 && index < extent ? index : -1;
}

template <typename T>
T Combine(T old, T update, const std::string& reduction) {
  if (reduction == "none") return update;
  if constexpr (std::is_same_v<T, bool>) {
    return update;
  } else if constexpr (kFloating<T>) {
    const double a = Load(old), b = Load(update);
    return Store<T>(reduction == "add"   ? a + b
                    : reduction == "mul" ? a * b
                    : reduction == "min" ? std::min(a, b)
                                         : std::max(a, b));
  } else {
    if (reduction == "min") return std::min(old, update);
    if (reduction == "max") return std::max(old, update);
    const auto a = static_cast<uint64_t>(old), b = static_cast<uint64_t>(update);
    return static_cast<T>(reduction == "add" ? a + b : a * b);
  }
}

// Positions in x of the blocks that the rows of `indices` name; -1: outside.
std::vector<int64_t> BlockPositions(const TensorView& x, const TensorView& indices,
                                    int64_t batch_axes) {
  const std::vector<int64_t> strides = MemoryStrides(x.shape());
  const int64_t depth = indices.shape().back();
  int64_t batches = 1;
  for (int axis = 0; axis < batch_axes; ++axis) batches *= x.shape()[axis];
  int64_t rows = 1;
  for (int axis = 0; axis + 1 < indices.shape().rank(); ++axis) rows *= indices.shape()[axis];
  const int64_t batch_size = batches == 0 ? 0 : x.elements() / batches;
  std::vector<int64_t> positions(rows);
  for (int64_t row = 0; row < rows; ++row) {
    int64_t position = row / (rows / batches) * batch_size;
    for (int64_t k = 0; k < depth && position >= 0; ++k) {
      const int axis = static_cast<int>(batch_axes + k);
      const int64_t index = Locate(indices.as<int64_t>()[row * depth + k], x.shape()[axis]);
      position = index < 0 ? -1 : position + index * strides[axis];
    }
    positions[row] = position;
  }
  return positions;
}

void CopyStrided(const KernelContext& context, int64_t start, const std::vector<int64_t>& strides) {
  const Shape& shape = context.output(0).shape();
  if (shape.elements() == 0) return;
  const StridedLoop<2> loop(shape, {strides, DenseStrides(shape)});
  VisitSize(context.input(0).type.dtype, [&]<typename T>(TypeTag<T>) {
    const T* x = context.input(0).as<T>() + start;
    T* y = context.output(0).as<T>();
    loop.Run([&](const auto& offset, int64_t count, const auto& step) {
      const T* from = x + offset[0];
      T* to = y + offset[1];
      if (step[0] == 1) {
        std::memcpy(to, from, count * sizeof(T));
      } else if (step[0] == 0) {
        std::fill_n(to, count, *from);
      } else {
        for (int64_t i = 0; i < count; ++i) to[i] = from[i * step[0]];
      }
    });
  });
}

void Copy(const TensorView& from, const TensorView& to) {
  if (from.type.bytes() > 0) std::memcpy(to.data, from.data, from.type.bytes());
}

// body(i, position in x): for each element i of the indices, where gather_elements reads.
template <typename Body>
void WalkElements(const TensorView& x, const TensorView& indices, int64_t axis, const Body& body) {
  if (axis < 0) axis += x.shape().rank();
  std::vector<int64_t> others = MemoryStrides(x.shape());
  const int64_t stride = others[axis];
  others[axis] = 0;
  Walk<1>(indices.shape(), std::array{others}, [&](int64_t i, const std::array<int64_t, 1>& at) {
    const int64_t index = Locate(indices.as<int64_t>()[i], x.shape()[static_cast<int>(axis)]);
    body(i, index < 0 ? -1 : at[0] + index * stride);
  });
}

}  // namespace

void Convert(const KernelContext& context) {
  // Of the 169 pairs of types only the inner loop is compiled.
  void (*part)(const void* x, void* y, int64_t begin, int64_t end) = nullptr;
  VisitType(context.input(0).type.dtype, [&]<typename From>(TypeTag<From>) {
    VisitType(context.output(0).type.dtype, [&]<typename To>(TypeTag<To>) {
      part = [](const void* x, void* y, int64_t begin, int64_t end) {
        const From* from = static_cast<const From*>(x);
        To* to = static_cast<To*>(y);
        for (int64_t i = begin; i < end; ++i) to[i] = ConvertOne<To>(Load(from[i]));
      };
    });
  });
  const void* x = context.input(0).data;
  void* y = context.output(0).data;
  ComputeLoop(context.input(0).elements(), kMoveGrain,
              [&](int64_t begin, int64_t end) { part(x, y, begin, end); });
}

void Strided(const KernelContext& context) {
  CopyStrided(context, context.attributes().Int("offset"), context.attributes().Ints("strides"));
}

void TransposeAny(const KernelContext& context) {
  CopyStrided(context, 0,
              TransposedStrides(context.input(0).shape(), context.attributes().Ints("perm")));
}

void SliceAny(const KernelContext& context) {
  const SliceWalk walk(context.input(0).shape(), context.attributes());
  CopyStrided(context, walk.offset, walk.strides);
}

void Repeat(const KernelContext& context) {
  CopyStrided(context, 0, RepeatStrides(context.input(0).shape(), context.output(0).shape()));
}

void Constant(const KernelContext& context) {
  const std::string data = context.attributes().Text("data");
  if (!data.empty()) std::memcpy(context.output(0).data, data.data(), data.size());
}

void IndexRange(const KernelContext& context) {
  const auto y = context.output(0).span<int32_t>();
  for (size_t i = 0; i < y.size(); ++i) y[i] = static_cast<int32_t>(i);
}

void PadConstant(const KernelContext& context) {
  const Shape& from = context.input(0).shape();
  const Shape& to = context.output(0).shape();
  const std::vector<int64_t> before = context.attributes().Ints("before");
  const std::vector<int64_t> from_strides = MemoryStrides(from);
  VisitSize(context.input(0).type.dtype, [&]<typename T>(TypeTag<T>) {
    const T* x = context.input(0).as<T>();
    T* y = context.output(0).as<T>();
    std::fill_n(y, to.elements(), context.input(1).as<T>()[0]);
    // The part of x that stays.
    const std::vector<int64_t> to_strides = MemoryStrides(to);
    std::vector<int64_t> extents(from.rank());
    int64_t source = 0, target = 0;
    for (int axis = 0; axis < from.rank(); ++axis) {
      const int64_t first = std::max<int64_t>(0, -before[axis]);
      const int64_t last = std::min(from[axis], to[axis] - before[axis]);
      extents[axis] = std::max<int64_t>(0, last - first);
      source += first * from_strides[axis];
      target += (first + before[axis]) * to_strides[axis];
    }
    if (Shape(extents).elements() == 0) return;
    const StridedLoop<2> loop(Shape(extents), {from_strides, to_strides});
    loop.Run([&](const auto& offset, int64_t count, const auto& step) {
      const T* inside = x + source + offset[0];
      T* place = y + target + offset[1];
      if (step[0] == 1 && step[1] == 1) {
        std::memcpy(place, inside, count * sizeof(T));
      } else {
        for (int64_t i = 0; i < count; ++i) place[i * step[1]] = inside[i * step[0]];
      }
    });
  });
}

void Join(const KernelContext& context) {
  const int64_t axis = context.attributes().Int("axis");
  const AxisSplit whole(context.output(0).shape(), axis);
  const size_t size = DTypeSize(context.output(0).type.dtype);
  char* y = context.output(0).as<char>();
  for (int i = 0; i < context.inputs(); ++i) {
    const AxisSplit part(context.input(i).shape(), axis);
    const size_t bytes = part.extent * part.inner * size;
    const char* x = context.input(i).as<char>();
    const size_t stride = whole.extent * whole.inner * size;
    if (bytes > 0) {
      const auto rows = std::max<int64_t>(1, kMoveGrain * 4 / static_cast<int64_t>(bytes));
      ComputeLoop(part.outer, rows, [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
          std::memcpy(y + row * stride, x + row * bytes, bytes);
        }
      });
    }
    y += bytes;
  }
}

void Take(const KernelContext& context) {
  const AxisSplit split(context.input(0).shape(), context.attributes().Int("axis"));
  const auto indices = context.input(1).span<const int64_t>();
  const size_t bytes = split.inner * DTypeSize(context.input(0).type.dtype);
  const char* x = context.input(0).as<char>();
  char* y = context.output(0).as<char>();
  const auto count = static_cast<int64_t>(indices.size());
  if (bytes == 0 || count == 0) return;
  const auto grain = std::max<int64_t>(1, kMoveGrain * 4 / static_cast<int64_t>(bytes));
  ComputeLoop(split.outer * count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t at = Locate(indices[i % count], split.extent);
      if (at < 0) {
        std::memset(y + i * bytes, 0, bytes);
      } else {
        std::memcpy(y + i * bytes, x + (i / count * split.extent + at) * bytes, bytes);
      }
    }
  });
}

void GatherElements(const KernelContext& context) {
  VisitSize(context.input(0).type.dtype, [&]<typename T>(TypeTag<T>) {
    const T* x = context.input(0).as<T>();
    T* y = context.output(0).as<T>();
    WalkElements(context.input(0), context.input(1), context.attributes().Int("axis"),
                 [&](int64_t i, int64_t at) { y[i] = at < 0 ? T{0} : x[at]; });
  });
}

void ScatterElements(const KernelContext& context) {
  Copy(context.input(0), context.output(0));
  const std::string reduction = context.attributes().Text("reduction", "none");
  VisitType(context.input(0).type.dtype, [&]<typename T>(TypeTag<T>) {
    const T* updates = context.input(2).as<T>();
    T* y = context.output(0).as<T>();
    WalkElements(context.input(0), context.input(1), context.attributes().Int("axis"),
                 [&](int64_t i, int64_t at) {
                   if (at >= 0) y[at] = Combine(y[at], updates[i], reduction);
                 });
  });
}

void GatherNd(const KernelContext& context) {
  const std::vector<int64_t> positions =
      BlockPositions(context.input(0), context.input(1), context.attributes().Int("batch_axes"));
  if (positions.empty()) return;
  const int64_t block = context.output(0).elements() / static_cast<int64_t>(positions.size());
  const size_t size = DTypeSize(context.input(0).type.dtype);
  const char* x = context.input(0).as<char>();
  char* y = context.output(0).as<char>();
  if (block == 0) return;
  for (const int64_t position : positions) {
    if (position < 0) {
      std::memset(y, 0, block * size);
    } else {
      std::memcpy(y, x + position * size, block * size);
    }
    y += block * size;
  }
}

void ScatterNd(const KernelContext& context) {
  Copy(context.input(0), context.output(0));
  const std::vector<int64_t> positions = BlockPositions(context.input(0), context.input(1), 0);
  if (positions.empty()) return;
  const int64_t block = context.input(2).elements() / static_cast<int64_t>(positions.size());
  const std::string reduction = context.attributes().Text("reduction", "none");
  VisitType(context.input(0).type.dtype, [&]<typename T>(TypeTag<T>) {
    const T* update = context.input(2).as<T>();
    T* y = context.output(0).as<T>();
    for (const int64_t position : positions) {
      for (int64_t i = 0; i < block && position >= 0; ++i) {
        y[position + i] = Combine(y[position + i], update[i], reduction);
      }
      update += block;
    }
  });
}

}  // namespace lepton::kernels::general
