#include "runtime/kernels/cuda/device/updates.h"

#include "runtime/kernels/cuda/device/code.cuh"

namespace lepton::kernels::cuda {
namespace {

constexpr int kUpdateThreads = 256;
// Blocks for `count` values: 16 each thread, at most as many as there are sums.
int64_t SquareBlocks(int64_t count) {
  const int64_t blocks = Blocks(count, 16 * kUpdateThreads);
  return blocks < 1 ? 1 : blocks < kSquareSums - 1 ? blocks : kSquareSums - 1;
}

__global__ void Sgd(const SgdUpdate u, int64_t count, float* weights, const float* gradients,
                    float* velocity) {
  const int64_t i = GlobalIndex();
  if (i >= count) return;
  float g = gradients[i] * u.gradient_scale + u.weight_decay * weights[i];
  if (velocity != nullptr) {
    g += u.momentum * velocity[i];
    velocity[i] = g;
  }
  weights[i] -= u.lr * g;
}

__global__ void Adam(const AdamUpdate u, int64_t count, float* weights, const float* gradients,
                     float* first, float* second) {
  const int64_t i = GlobalIndex();
  if (i >= count) return;
  const float g = gradients[i] * u.gradient_scale + u.weight_decay * weights[i];
  const float m = u.beta1 * first[i] + (1.0f - u.beta1) * g;
  const float v = u.beta2 * second[i] + (1.0f - u.beta2) * (g * g);
  first[i] = m;
  second[i] = v;
  const float denominator = sqrtf(v) * u.second_scale + u.epsilon;
  weights[i] = weights[i] * u.shrink - u.lr * (m / denominator);
}

__global__ void Scale(int64_t count, float factor, float* values) {
  const int64_t i = GlobalIndex();
  if (i < count) values[i] *= factor;
}

__global__ void MoveTowards(int64_t count, float momentum, float scale, const float* measured,
                            float* values) {
  const int64_t i = GlobalIndex();
  if (i < count) values[i] += momentum * (measured[i] * scale - values[i]);
}

__device__ double BlockSumOfDoubles(double value) {
  __shared__ double sums[kUpdateThreads];
  sums[threadIdx.x] = value;
  __syncthreads();
  for (int half = kUpdateThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < static_cast<unsigned>(half)) sums[threadIdx.x] += sums[threadIdx.x + half];
    __syncthreads();
  }
  return sums[0];
}

// Which block and thread takes an element depends on its index alone.
__global__ void SquaresOfBlocks(int64_t count, const float* values, double* sums) {
  double sum = 0;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kUpdateThreads;
  for (int64_t i = GlobalIndex(); i < count; i += stride) {
    const double value = values[i];
    sum += value * value;
  }
  sum = BlockSumOfDoubles(sum);
  if (threadIdx.x == 0) sums[1 + blockIdx.x] = sum;
}

__global__ void SumBlocks(int blocks, double* sums) {
  double sum = 0;
  for (int i = threadIdx.x; i < blocks; i += kUpdateThreads) sum += sums[1 + i];
  sum = BlockSumOfDoubles(sum);
  if (threadIdx.x == 0) sums[0] = sum;
}

Grid UpdateGrid(int64_t count) {
  return {Blocks(count, kUpdateThreads)};
}

}  // namespace

void RunSgd(const SgdUpdate& update, int64_t count, float* weights, const float* gradients,
            float* velocity, Stream stream) {
  LaunchFlat(Sgd, UpdateGrid(count), kUpdateThreads, stream, update, count, weights, gradients,
             velocity);
}

void RunAdam(const AdamUpdate& update, int64_t count, float* weights, const float* gradients,
             float* first, float* second, Stream stream) {
  LaunchFlat(Adam, UpdateGrid(count), kUpdateThreads, stream, update, count, weights, gradients,
             first, second);
}

void RunScale(int64_t count, float factor, float* values, Stream stream) {
  LaunchFlat(Scale, UpdateGrid(count), kUpdateThreads, stream, count, factor, values);
}

void RunMoveTowards(int64_t count, float momentum, float scale, const float* measured,
                    float* values, Stream stream) {
  LaunchFlat(MoveTowards, UpdateGrid(count), kUpdateThreads, stream, count, momentum, scale,
             measured, values);
}

void RunSumOfSquares(int64_t count, const float* values, double* sums, Stream stream) {
  const int64_t blocks = SquareBlocks(count);
  Launch(SquaresOfBlocks, Grid{blocks}, kUpdateThreads, 0, stream, count, values, sums);
  Launch(SumBlocks, Grid{1}, kUpdateThreads, 0, stream, static_cast<int>(blocks), sums);
}

}  // namespace lepton::kernels::cuda
