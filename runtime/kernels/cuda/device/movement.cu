#include "runtime/kernels/cuda/device/movement.h"

#include "runtime/kernels/cuda/device/rows.cuh"

namespace lepton::kernels::cuda {
namespace {

constexpr int kMoveThreads = 256;

Grid FlatGrid(int64_t count) {
  return {Blocks(count, kMoveThreads)};
}

// Where an element lies that is at `index` of row-major extents.
__device__ int64_t Place(int64_t index, int axes, const int64_t* extents, const int64_t* strides) {
  int64_t place = 0;
  for (int axis = axes - 1; axis >= 0; --axis) {
    place += index % extents[axis] * strides[axis];
    index /= extents[axis];
  }
  return place;
}

__device__ void MoveElement(int bytes, const void* x, int64_t from, void* y, int64_t to) {
  if (bytes == 4) {
    static_cast<uint32_t*>(y)[to] = static_cast<const uint32_t*>(x)[from];
  } else {
    static_cast<uint16_t*>(y)[to] = static_cast<const uint16_t*>(x)[from];
  }
}

__global__ void Strided(const StridedArguments a) {
  const int64_t index = GlobalIndex();
  if (index >= a.total) return;
  const int64_t from = a.offset + Place(index, a.axes, a.extents, a.strides);
  if (a.bytes != 0) {
    MoveElement(a.bytes, a.x, from, a.y, index);
  } else {
    MutableFloats{a.y, a.bf16_y}.Set(index, Floats{a.x, a.bf16_x}[from] * a.factor);
  }
}

__global__ void SliceGrad(AxisShape s, int64_t begin, int64_t step, int64_t count, const float* dy,
                          float* dx) {
  const int64_t index = GlobalIndex();
  if (index >= s.outer * s.extent * s.inner) return;
  const int64_t inner = index % s.inner;
  const int64_t at = index / s.inner % s.extent - begin;
  const int64_t outer = index / s.inner / s.extent;
  const bool there = at >= 0 && at % step == 0 && at / step < count;
  dx[index] = there ? dy[(outer * count + at / step) * s.inner + inner] : 0.0f;
}

__global__ void ConcatPart(int64_t blocks, int64_t length, int bytes, int64_t pitch, int64_t offset,
                           const void* x, void* y) {
  const int64_t index = GlobalIndex();
  if (index >= blocks * length) return;
  MoveElement(bytes, x, index, y, index / length * pitch + offset + index % length);
}

// The row that an index means; -1 when it is outside.
__device__ int64_t RowOf(int32_t index, int64_t extent) {
  const int64_t row = index < 0 ? index + extent : index;
  return row >= 0 && row < extent ? row : -1;
}

__global__ void Gather(AxisShape s, int64_t count, const int32_t* indices, int bytes,
                       uint32_t missing, const void* x, void* y) {
  const int64_t index = GlobalIndex();
  if (index >= s.outer * count * s.inner) return;
  const int64_t inner = index % s.inner;
  const int64_t outer = index / s.inner / count;
  const int64_t row = RowOf(indices[index / s.inner % count], s.extent);
  if (row < 0) {
    MoveElement(bytes, &missing, 0, y, index);
  } else {
    MoveElement(bytes, x, (outer * s.extent + row) * s.inner + inner, y, index);
  }
}

// A block per place of dx reads all indices, as many at once as it has threads, and adds what they
// point to in their order: no atomics, so the same bits each time.
__global__ void GatherGrad(AxisShape s, int64_t count, const int32_t* indices, const float* dy,
                           float* dx) {
  __shared__ int matches[kMoveThreads];
  __shared__ int any;
  const int64_t index = blockIdx.x, row = index % s.extent, outer = index / s.extent;
  float* to = dx + (outer * s.extent + row) * s.inner;
  for (int64_t i = threadIdx.x; i < s.inner; i += blockDim.x) to[i] = 0;
  for (int64_t first = 0; first < count; first += blockDim.x) {
    const int64_t mine = first + threadIdx.x;
    const bool match = mine < count && RowOf(indices[mine], s.extent) == row;
    if (threadIdx.x == 0) any = 0;
    __syncthreads();
    matches[threadIdx.x] = match;
    if (match) any = 1;
    __syncthreads();
    if (any != 0) {
      for (int j = 0; j < static_cast<int>(blockDim.x); ++j) {
        if (matches[j] == 0) continue;
        const float* from = dy + (outer * count + first + j) * s.inner;
        for (int64_t i = threadIdx.x; i < s.inner; i += blockDim.x) to[i] += from[i];
      }
    }
    __syncthreads();
  }
}

__global__ void Fill(int64_t count, float value, float* y) {
  const int64_t index = GlobalIndex();
  if (index < count) y[index] = value;
}

__global__ void Positions(int64_t count, int32_t offset, int32_t* y) {
  const int64_t index = GlobalIndex();
  if (index < count) y[index] = offset + static_cast<int32_t>(index);
}

__global__ void AxisSum(AxisShape s, Floats x, float factor, MutableFloats y) {
  const int64_t index = GlobalIndex();
  if (index >= s.outer * s.inner) return;
  const int64_t start = index / s.inner * s.extent * s.inner + index % s.inner;
  float sum = 0;
  for (int64_t k = 0; k < s.extent; ++k) sum += x[start + k * s.inner];
  y.Set(index, sum * factor);
}

__global__ void SumTo(const SumToArguments a) {
  const int64_t start = Place(blockIdx.x, a.kept, a.kept_extents, a.kept_strides);
  const float sum = RowSum(a.terms, [&](int64_t i) {
    return a.x[start + Place(i, a.reduced, a.reduced_extents, a.reduced_strides)];
  });
  if (threadIdx.x == 0) a.y[blockIdx.x] = sum;
}

}  // namespace

void RunStrided(const StridedArguments& arguments, Stream stream) {
  LaunchFlat(Strided, FlatGrid(arguments.total), kMoveThreads, stream, arguments);
}

void RunSliceGrad(AxisShape shape, int64_t begin, int64_t step, int64_t count, const float* dy,
                  float* dx, Stream stream) {
  LaunchFlat(SliceGrad, FlatGrid(shape.outer * shape.extent * shape.inner), kMoveThreads, stream,
             shape, begin, step, count, dy, dx);
}

void RunConcatPart(int64_t blocks, int64_t length, int bytes, int64_t pitch, int64_t offset,
                   const void* x, void* y, Stream stream) {
  LaunchFlat(ConcatPart, FlatGrid(blocks * length), kMoveThreads, stream, blocks, length, bytes,
             pitch, offset, x, y);
}

void RunGather(AxisShape shape, int64_t count, const int32_t* indices, int bytes, uint32_t missing,
               const void* x, void* y, Stream stream) {
  LaunchFlat(Gather, FlatGrid(shape.outer * count * shape.inner), kMoveThreads, stream, shape,
             count, indices, bytes, missing, x, y);
}

void RunGatherGrad(AxisShape shape, int64_t count, const int32_t* indices, const float* dy,
                   float* dx, Stream stream) {
  const int64_t widest = count > shape.inner ? count : shape.inner;
  const int64_t warps = widest < kMoveThreads ? Blocks(widest, kWarp) : kMoveThreads / kWarp;
  Launch(GatherGrad, Grid{shape.extent * shape.outer}, static_cast<int>(warps) * kWarp, 0, stream,
         shape, count, indices, dy, dx);
}

void RunFill(int64_t count, float value, float* y, Stream stream) {
  LaunchFlat(Fill, FlatGrid(count), kMoveThreads, stream, count, value, y);
}

void RunPositions(int64_t count, int32_t offset, int32_t* y, Stream stream) {
  LaunchFlat(Positions, FlatGrid(count), kMoveThreads, stream, count, offset, y);
}

void RunAxisSum(AxisShape shape, const void* x, bool bf16, float factor, void* y, bool bf16_y,
                Stream stream) {
  LaunchFlat(AxisSum, FlatGrid(shape.outer * shape.inner), kMoveThreads, stream, shape,
             Floats{x, bf16}, factor, MutableFloats{y, bf16_y});
}

void RunSumTo(const SumToArguments& arguments, Stream stream) {
  Launch(SumTo, Grid{arguments.outputs}, RowThreads(arguments.terms), 0, stream, arguments);
}

}  // namespace lepton::kernels::cuda
