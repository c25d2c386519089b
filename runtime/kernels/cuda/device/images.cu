// Pools and batch normalisation.
#include "runtime/kernels/cuda/device/images.h"

#include "runtime/kernels/cuda/device/rows.cuh"

namespace lepton::kernels::cuda {
namespace {

constexpr int kPoolThreads = 256;

// The steps [first, last) of a window that lie inside of the plane.
struct Covered {
  int64_t start, step, first, last;
  __device__ int64_t At(int64_t i) const { return start + i * step; }
  __device__ int64_t count() const { return last > first ? last - first : 0; }
};

__device__ Covered Cover(const WindowAxisArguments& axis, int64_t output) {
  Covered covered{output * axis.stride - axis.before, axis.dilation, 0, axis.extent};
  if (covered.start < 0) covered.first = (-covered.start + covered.step - 1) / covered.step;
  const int64_t room = (axis.in - covered.start + covered.step - 1) / covered.step;
  if (room < covered.last) covered.last = room;
  return covered;
}

// The first of the largest elements; a NaN is larger than everything. -1 for an empty window.
__device__ int64_t Largest(const float* x, int64_t width, const Covered& rows,
                           const Covered& columns) {
  int64_t best = -1;
  for (int64_t i = rows.first; i < rows.last; ++i) {
    for (int64_t j = columns.first; j < columns.last; ++j) {
      const int64_t here = rows.At(i) * width + columns.At(j);
      const bool nan = x[here] != x[here];
      if (best < 0 || x[here] > x[best] || (nan && x[best] == x[best])) best = here;
    }
  }
  return best;
}

__device__ float Divisor(const PoolArguments& a, const Covered& rows, const Covered& columns) {
  const int64_t covered = rows.count() * columns.count();
  const int64_t count = a.include_pad ? a.h.extent * a.w.extent : covered < 1 ? 1 : covered;
  return static_cast<float>(count);
}

// A thread per element of y.
__global__ void Pool(const PoolArguments a) {
  const int64_t index = GlobalIndex();
  if (index >= a.planes * a.h.out * a.w.out) return;
  const Covered columns = Cover(a.w, index % a.w.out);
  const Covered rows = Cover(a.h, index / a.w.out % a.h.out);
  const float* x = a.x + index / a.w.out / a.h.out * a.h.in * a.w.in;
  if (!a.average) {
    const int64_t best = Largest(x, a.w.in, rows, columns);
    a.y[index] = best < 0 ? -INFINITY : x[best];
    return;
  }
  float sum = 0;
  for (int64_t i = rows.first; i < rows.last; ++i) {
    for (int64_t j = columns.first; j < columns.last; ++j) {
      sum += x[rows.At(i) * a.w.in + columns.At(j)];
    }
  }
  a.y[index] = sum / Divisor(a, rows, columns);
}

// Outputs [first, last) whose windows may cover an input.
__device__ void Covering(const WindowAxisArguments& axis, int64_t input, int64_t* first,
                         int64_t* last) {
  const int64_t low = input + axis.before - axis.dilation * (axis.extent - 1);
  *first = low <= 0 ? 0 : (low + axis.stride - 1) / axis.stride;
  *last = (input + axis.before) / axis.stride + 1;
  if (*last > axis.out) *last = axis.out;
}

__device__ bool Holds(const Covered& covered, int64_t input) {
  const int64_t at = input - covered.start;
  return at >= 0 && at % covered.step == 0 && at / covered.step >= covered.first &&
         at / covered.step < covered.last;
}

// A thread per element of dx: it looks at every window that covers it, so nothing is added by two.
__global__ void PoolGrad(const PoolArguments a) {
  const int64_t index = GlobalIndex();
  if (index >= a.planes * a.h.in * a.w.in) return;
  const int64_t column = index % a.w.in, row = index / a.w.in % a.h.in;
  const int64_t plane = index / a.w.in / a.h.in;
  const float* dy = a.dy + plane * a.h.out * a.w.out;
  int64_t first_row, last_row, first_column, last_column;
  Covering(a.h, row, &first_row, &last_row);
  Covering(a.w, column, &first_column, &last_column);
  float sum = 0;
  for (int64_t i = first_row; i < last_row; ++i) {
    const Covered rows = Cover(a.h, i);
    if (!Holds(rows, row)) continue;
    for (int64_t j = first_column; j < last_column; ++j) {
      const Covered columns = Cover(a.w, j);
      if (!Holds(columns, column)) continue;
      const float slope = dy[i * a.w.out + j];
      if (a.average) {
        sum += slope / Divisor(a, rows, columns);
      } else if (Largest(a.x + plane * a.h.in * a.w.in, a.w.in, rows, columns) ==
                 row * a.w.in + column) {
        sum += slope;
      }
    }
  }
  a.dx[index] = sum;
}

// Element i of a channel's images and pixels.
__device__ int64_t ChannelPlace(const BatchNormArguments& a, int64_t channel, int64_t i) {
  return (i / a.pixels * a.channels + channel) * a.pixels + i % a.pixels;
}

// A block per channel.
__global__ void BatchNorm(const BatchNormArguments a) {
  const int64_t c = blockIdx.x;
  const int64_t count = a.images * a.pixels;
  const Floats x{a.x, a.bf16};
  const MutableFloats y{a.y, a.bf16};
  float mean = a.running_mean[c], variance = a.running_variance[c];
  float new_mean = mean, new_variance = variance;
  if (a.training) {
    mean = RowSum(count, [&](int64_t i) { return x[ChannelPlace(a, c, i)]; }) /
           static_cast<float>(count);
    const float squares = RowSum(count, [&](int64_t i) {
      const float distance = x[ChannelPlace(a, c, i)] - mean;
      return distance * distance;
    });
    variance = squares / static_cast<float>(count);
    const float unbiased = squares / static_cast<float>(count > 1 ? count - 1 : 1);
    new_mean = (1.0f - a.momentum) * new_mean + a.momentum * mean;
    new_variance = (1.0f - a.momentum) * new_variance + a.momentum * unbiased;
  }
  const float rstd = rsqrtf(variance + a.epsilon);
  const float factor = rstd * a.gain[c], offset = a.bias[c];
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
    const int64_t place = ChannelPlace(a, c, i);
    y.Set(place, (x[place] - mean) * factor + offset);
  }
  if (threadIdx.x != 0) return;
  a.new_mean[c] = new_mean;
  a.new_variance[c] = new_variance;
  a.mean[c] = mean;
  a.rstd[c] = rstd;
}

// y again, of the same bits.
__global__ void BatchNormApply(const BatchNormArguments a) {
  const int64_t c = blockIdx.x;
  const int64_t count = a.images * a.pixels;
  const Floats x{a.x, a.bf16};
  const MutableFloats y{a.y, a.bf16};
  const float mean = a.mean[c], factor = a.rstd[c] * a.gain[c], offset = a.bias[c];
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
    const int64_t place = ChannelPlace(a, c, i);
    y.Set(place, (x[place] - mean) * factor + offset);
  }
}

// With h = (x - mean) * rstd: dgain = sum(dy h), dbias = sum(dy), and in training
// dx = gain rstd (dy - dbias / count - h dgain / count).
__global__ void BatchNormGrad(const BatchNormArguments a) {
  const int64_t c = blockIdx.x;
  const int64_t count = a.images * a.pixels;
  const float mean = a.mean[c], rstd = a.rstd[c];
  const Floats x{a.x, a.bf16}, dy{a.dy, a.bf16};
  const MutableFloats dx{a.dx, a.bf16};
  const float dgain = RowSum(count, [&](int64_t i) {
    const int64_t place = ChannelPlace(a, c, i);
    return dy[place] * ((x[place] - mean) * rstd);
  });
  const float dbias = RowSum(count, [&](int64_t i) { return dy[ChannelPlace(a, c, i)]; });
  const float share = a.training ? 1.0f / static_cast<float>(count) : 0.0f;
  const float factor = a.gain[c] * rstd;
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
    const int64_t place = ChannelPlace(a, c, i);
    const float h = (x[place] - mean) * rstd;
    dx.Set(place, factor * (dy[place] - share * (dbias + h * dgain)));
  }
  if (threadIdx.x != 0) return;
  a.dgain[c] = dgain;
  a.dbias[c] = dbias;
}

}  // namespace

void RunPool(const PoolArguments& a, Stream stream) {
  LaunchFlat(Pool, Grid{Blocks(a.planes * a.h.out * a.w.out, kPoolThreads)}, kPoolThreads, stream,
             a);
}

void RunPoolGrad(const PoolArguments& a, Stream stream) {
  LaunchFlat(PoolGrad, Grid{Blocks(a.planes * a.h.in * a.w.in, kPoolThreads)}, kPoolThreads, stream,
             a);
}

void RunBatchNorm(const BatchNormArguments& a, Stream stream) {
  Launch(BatchNorm, Grid{a.channels}, RowThreads(a.images * a.pixels), 0, stream, a);
}

void RunBatchNormApply(const BatchNormArguments& a, Stream stream) {
  Launch(BatchNormApply, Grid{a.channels}, RowThreads(a.images * a.pixels), 0, stream, a);
}

void RunBatchNormGrad(const BatchNormArguments& a, Stream stream) {
  Launch(BatchNormGrad, Grid{a.channels}, RowThreads(a.images * a.pixels), 0, stream, a);
}

}  // namespace lepton::kernels::cuda
