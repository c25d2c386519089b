#include "runtime/kernels/cuda/device/tokens.h"

#include "runtime/kernels/cuda/device/code.cuh"

namespace lepton::kernels::cuda {
namespace {

constexpr int kTokenThreads = 256;

__global__ void Rope(const RopeArguments a) {
  const int64_t index = GlobalIndex();
  if (index >= a.rows * a.heads * a.size) return;
  const int64_t i = index % a.size;
  const int64_t position = index / (a.heads * a.size) % a.positions;
  const Floats x{a.x, a.bf16};
  const MutableFloats y{a.y, a.bf16};
  if (i >= a.dims) {
    y.Set(index, x[index]);
    return;
  }
  const int64_t half = a.dims / 2;
  const bool second = a.interleaved ? i % 2 == 1 : i >= half;
  const int64_t pair = a.interleaved ? i / 2 : i % half;
  const int64_t distance = a.interleaved ? 1 : half;
  const float* turn = a.turns + (position * half + pair) * 2;
  const float other = x[second ? index - distance : index + distance];
  y.Set(index,
        second ? x[index] * turn[0] + other * turn[1] : x[index] * turn[0] - other * turn[1]);
}

// The tokens that a text's row is taken from: [first, last] of those that count, each with `share`.
struct PooledTokens {
  int64_t first, last;
  float share;
};

__device__ bool Counts(const float* mask, int64_t token) {
  return mask == nullptr || mask[token] > -1.0f;
}

__device__ PooledTokens FindTokens(TokenPool kind, int64_t tokens, const float* mask) {
  int64_t first = -1, last = 0, count = 0;
  for (int64_t token = 0; token < tokens; ++token) {
    if (!Counts(mask, token)) continue;
    if (first < 0) first = token;
    last = token;
    ++count;
  }
  // Nothing counts: the first token does.
  if (first < 0) return {0, 0, 1.0f};
  if (kind == TokenPool::kFirst) return {first, first, 1.0f};
  if (kind == TokenPool::kLast) return {last, last, 1.0f};
  return {first, last, 1.0f / static_cast<float>(count)};
}

__device__ bool Takes(const PooledTokens& pooled, const float* mask, int64_t token) {
  if (token < pooled.first || token > pooled.last) return false;
  return pooled.first == pooled.last || Counts(mask, token);
}

__global__ void PoolTokens(TokenPool kind, int64_t tokens, int64_t n, const float* mask,
                           const float* x, float* y) {
  const int64_t text = blockIdx.x;
  if (mask != nullptr) mask += text * tokens;
  const PooledTokens pooled = FindTokens(kind, tokens, mask);
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    float sum = 0;
    for (int64_t token = pooled.first; token <= pooled.last; ++token) {
      if (Takes(pooled, mask, token)) sum += x[(text * tokens + token) * n + i];
    }
    y[text * n + i] = sum * pooled.share;
  }
}

__global__ void PoolTokensGrad(TokenPool kind, int64_t tokens, int64_t n, const float* mask,
                               const float* dy, float* dx) {
  const int64_t text = blockIdx.x;
  if (mask != nullptr) mask += text * tokens;
  const PooledTokens pooled = FindTokens(kind, tokens, mask);
  for (int64_t i = threadIdx.x; i < tokens * n; i += blockDim.x) {
    const float share = Takes(pooled, mask, i / n) ? pooled.share : 0.0f;
    dx[text * tokens * n + i] = share * dy[text * n + i % n];
  }
}

}  // namespace

void RunRope(const RopeArguments& a, Stream stream) {
  LaunchFlat(Rope, Grid{Blocks(a.rows * a.heads * a.size, kTokenThreads)}, kTokenThreads, stream,
             a);
}

void RunPoolTokens(TokenPool kind, int64_t texts, int64_t tokens, int64_t n, const float* mask,
                   const float* x, float* y, Stream stream) {
  LaunchFlat(PoolTokens, Grid{texts}, kTokenThreads, stream, kind, tokens, n, mask, x, y);
}

void RunPoolTokensGrad(TokenPool kind, int64_t texts, int64_t tokens, int64_t n, const float* mask,
                       const float* dy, float* dx, Stream stream) {
  LaunchFlat(PoolTokensGrad, Grid{texts}, kTokenThreads, stream, kind, tokens, n, mask, dy, dx);
}

}  // namespace lepton::kernels::cuda
