#include "runtime/kernels/cuda/device/attention.h"

#include "runtime/kernels/cuda/device/attention.cuh"

namespace lepton::kernels::cuda {
namespace {

// A block of queries of one head.
template <int kColumns>
__global__ void AttentionForward(const AttentionArguments a) {
  using Tile = AttentionTile<kColumns>;
  constexpr int kRows = Tile::kRows;
  float* const queries = Shared<float>();
  float* const keys = queries + Tile::kBlockRows * Tile::kWidth;
  float* const values = keys + kTile * Tile::kPitch;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  float* const weights = values + kTile * Tile::kPitch + warp * kRows * kTile;

  const AttentionBlock block = BlockOf(a.queries, Tile::kBlockRows, a.heads);
  const AttentionHead h = QueryHead(a, block);
  const int64_t first = block.first;
  const int64_t last = first + Tile::kBlockRows < a.queries ? first + Tile::kBlockRows : a.queries;
  LoadRows({a.q, a.bf16}, QueryPlace(a, h, first), a.q_pitch, last - first, Tile::kBlockRows,
           a.size, Tile::kWidth, Tile::kWidth, queries);

  float top[kRows], sum[kRows], y[kRows][kColumns] = {};
  for (int r = 0; r < kRows; ++r) {
    top[r] = -INFINITY;
    sum[r] = 0;
  }
  const int64_t end = EndKey(a, last - 1);
  for (int64_t start = FirstKey(a, first); start < end; start += kTile) {
    __syncthreads();
    LoadRows({a.k, a.bf16}, KeyPlace(a, h, start), a.kv_pitch, a.keys - start, kTile, a.size,
             Tile::kWidth, Tile::kPitch, keys);
    LoadRows({a.v, a.bf16}, ValuePlace(a, h, start), a.kv_pitch, a.keys - start, kTile, a.size,
             Tile::kWidth, Tile::kPitch, values);
    __syncthreads();
    float scores[kRows];
    TileProducts<kRows>(queries + warp * kRows * Tile::kWidth, Tile::kWidth, keys, Tile::kPitch,
                        a.size, scores);
    const int64_t key = start + lane;
    const float extra = a.bias != nullptr && key < a.keys ? a.bias[h.image * a.keys + key] : 0.0f;
    for (int r = 0; r < kRows; ++r) {
      const bool sees = Sees(a, first + warp * kRows + r, key);
      const float score = sees ? scores[r] * a.scale + extra : -INFINITY;
      const float highest = fmaxf(top[r], WarpMax(score));
      // Until a row has seen a key there is nothing to rescale, and nothing to add.
      const float rescale = top[r] == -INFINITY ? 0.0f : expf(top[r] - highest);
      const float weight = score == -INFINITY ? 0.0f : expf(score - highest);
      sum[r] = sum[r] * rescale + WarpSum(weight);
      top[r] = highest;
      for (int c = 0; c < kColumns; ++c) y[r][c] *= rescale;
      weights[r * kTile + lane] = weight;
    }
    __syncwarp();
    AddWeighted<kRows, kColumns>(weights, values, Tile::kPitch, y);
    __syncwarp();
  }
  for (int r = 0; r < kRows; ++r) {
    const int64_t query = first + warp * kRows + r;
    if (query >= a.queries) continue;
    StoreRow<kRows, kColumns>(y, r, 1.0f / sum[r], OutputPlace(a, h, query), a.size, {a.y, a.bf16});
    if (lane == 0) a.log_sum[RowPlace(a, h, query)] = top[r] + logf(sum[r]);
  }
}

// dot = dy y of each row; a warp per row.
__global__ void AttentionDots(const AttentionArguments a) {
  const int lane = threadIdx.x % kWarp;
  const int64_t row = GlobalIndex() / kWarp;
  const int64_t rows = a.batch * a.heads * a.queries;
  const int64_t query = row % a.queries, head = row / a.queries % a.heads;
  const AttentionHead h{row / a.queries / a.heads, head, 0};
  const Floats dy{a.dy, a.bf16}, y{a.y, a.bf16};
  float sum = 0;
  if (row < rows) {
    const int64_t place = OutputPlace(a, h, query);
    for (int64_t i = lane; i < a.size; i += kWarp) sum += dy[place + i] * y[place + i];
  }
  sum = WarpSum(sum);
  if (lane == 0 && row < rows) a.dot[row] = sum;
}

// With p = exp(score - log_sum): dscore = scale p (dy v - dot), dq = dscore k.
template <int kColumns>
__global__ void AttentionQueryGrad(const AttentionArguments a) {
  using Tile = AttentionTile<kColumns>;
  constexpr int kRows = Tile::kRows;
  float* const queries = Shared<float>();
  float* const slopes = queries + Tile::kBlockRows * Tile::kWidth;
  float* const keys = slopes + Tile::kBlockRows * Tile::kWidth;
  float* const values = keys + kTile * Tile::kPitch;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  float* const weights = values + kTile * Tile::kPitch + warp * kRows * kTile;

  const AttentionBlock block = BlockOf(a.queries, Tile::kBlockRows, a.heads);
  const AttentionHead h = QueryHead(a, block);
  const int64_t first = block.first;
  const int64_t last = first + Tile::kBlockRows < a.queries ? first + Tile::kBlockRows : a.queries;
  LoadRows({a.q, a.bf16}, QueryPlace(a, h, first), a.q_pitch, last - first, Tile::kBlockRows,
           a.size, Tile::kWidth, Tile::kWidth, queries);
  LoadRows({a.dy, a.bf16}, OutputPlace(a, h, first), a.y_pitch, last - first, Tile::kBlockRows,
           a.size, Tile::kWidth, Tile::kWidth, slopes);

  float dq[kRows][kColumns] = {};
  const int64_t end = EndKey(a, last - 1);
  for (int64_t start = FirstKey(a, first); start < end; start += kTile) {
    __syncthreads();
    LoadRows({a.k, a.bf16}, KeyPlace(a, h, start), a.kv_pitch, a.keys - start, kTile, a.size,
             Tile::kWidth, Tile::kPitch, keys);
    LoadRows({a.v, a.bf16}, ValuePlace(a, h, start), a.kv_pitch, a.keys - start, kTile, a.size,
             Tile::kWidth, Tile::kPitch, values);
    __syncthreads();
    float scores[kRows], dweights[kRows];
    const int own = warp * kRows * Tile::kWidth;
    TileProducts<kRows>(queries + own, Tile::kWidth, keys, Tile::kPitch, a.size, scores);
    TileProducts<kRows>(slopes + own, Tile::kWidth, values, Tile::kPitch, a.size, dweights);
    const int64_t key = start + lane;
    const float extra = a.bias != nullptr && key < a.keys ? a.bias[h.image * a.keys + key] : 0.0f;
    for (int r = 0; r < kRows; ++r) {
      const int64_t query = first + warp * kRows + r;
      float dscore = 0;
      if (Sees(a, query, key)) {
        const int64_t row = RowPlace(a, h, query);
        const float p = expf(scores[r] * a.scale + extra - a.log_sum[row]);
        dscore = a.scale * p * (dweights[r] - a.dot[row]);
      }
      weights[r * kTile + lane] = dscore;
    }
    __syncwarp();
    AddWeighted<kRows, kColumns>(weights, keys, Tile::kPitch, dq);
    __syncwarp();
  }
  for (int r = 0; r < kRows; ++r) {
    const int64_t query = first + warp * kRows + r;
    if (query >= a.queries) continue;
    StoreRow<kRows, kColumns>(dq, r, 1, QueryPlace(a, h, query), a.size, {a.dq, a.bf16});
  }
}

// dv = p dy and dk = dscore q, summed over queries and over the heads that share the keys, in
// order. A block of keys of one head of keys.
template <int kColumns>
__global__ void AttentionKeyGrad(const AttentionArguments a) {
  using Tile = AttentionTile<kColumns>;
  constexpr int kRows = Tile::kRows;
  float* const keys = Shared<float>();
  float* const values = keys + Tile::kBlockRows * Tile::kWidth;
  float* const queries = values + Tile::kBlockRows * Tile::kWidth;
  float* const slopes = queries + kTile * Tile::kPitch;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  float* const weights = slopes + kTile * Tile::kPitch + warp * 2 * kRows * kTile;
  float* const dscores = weights + kRows * kTile;

  const int64_t group = a.heads / a.kv_heads;
  const AttentionBlock block = BlockOf(a.keys, Tile::kBlockRows, a.kv_heads);
  AttentionHead h{block.image, 0, block.head};
  const int64_t first = block.first;
  const int64_t last = first + Tile::kBlockRows < a.keys ? first + Tile::kBlockRows : a.keys;
  LoadRows({a.k, a.bf16}, KeyPlace(a, h, first), a.kv_pitch, last - first, Tile::kBlockRows, a.size,
           Tile::kWidth, Tile::kWidth, keys);
  LoadRows({a.v, a.bf16}, ValuePlace(a, h, first), a.kv_pitch, last - first, Tile::kBlockRows,
           a.size, Tile::kWidth, Tile::kWidth, values);

  // The queries that see some of these keys.
  const int64_t shift = a.keys - a.queries;
  const int64_t begin = a.causal && first > shift ? first - shift : 0;
  int64_t end = a.queries;
  if (a.window > 0 && last - 1 + a.window - shift < end) end = last - 1 + a.window - shift;
  float dk[kRows][kColumns] = {}, dv[kRows][kColumns] = {};
  for (h.head = h.kv_head * group; h.head < (h.kv_head + 1) * group; ++h.head) {
    for (int64_t start = begin; start < end; start += kTile) {
      __syncthreads();
      LoadRows({a.q, a.bf16}, QueryPlace(a, h, start), a.q_pitch, a.queries - start, kTile, a.size,
               Tile::kWidth, Tile::kPitch, queries);
      LoadRows({a.dy, a.bf16}, OutputPlace(a, h, start), a.y_pitch, a.queries - start, kTile,
               a.size, Tile::kWidth, Tile::kPitch, slopes);
      __syncthreads();
      float scores[kRows], dweights[kRows];
      const int own = warp * kRows * Tile::kWidth;
      TileProducts<kRows>(keys + own, Tile::kWidth, queries, Tile::kPitch, a.size, scores);
      TileProducts<kRows>(values + own, Tile::kWidth, slopes, Tile::kPitch, a.size, dweights);
      const int64_t query = start + lane;
      for (int r = 0; r < kRows; ++r) {
        const int64_t key = first + warp * kRows + r;
        float p = 0, dscore = 0;
        if (key < a.keys && Sees(a, query, key)) {
          const int64_t row = RowPlace(a, h, query);
          const float extra = a.bias != nullptr ? a.bias[h.image * a.keys + key] : 0.0f;
          p = expf(scores[r] * a.scale + extra - a.log_sum[row]);
          dscore = a.scale * p * (dweights[r] - a.dot[row]);
        }
        weights[r * kTile + lane] = p;
        dscores[r * kTile + lane] = dscore;
      }
      __syncwarp();
      AddWeighted<kRows, kColumns>(weights, slopes, Tile::kPitch, dv);
      AddWeighted<kRows, kColumns>(dscores, queries, Tile::kPitch, dk);
      __syncwarp();
    }
  }
  for (int r = 0; r < kRows; ++r) {
    const int64_t key = first + warp * kRows + r;
    if (key >= a.keys) continue;
    StoreRow<kRows, kColumns>(dk, r, 1, KeyPlace(a, h, key), a.size, {a.dk, a.bf16});
    StoreRow<kRows, kColumns>(dv, r, 1, ValuePlace(a, h, key), a.size, {a.dv, a.bf16});
  }
}

// Shared memory of a block that holds `rows` arrays of its own rows, two tiles, and `weights`
// arrays of weights.
template <int kColumns>
size_t AttentionBytes(int rows, int weights) {
  using Tile = AttentionTile<kColumns>;
  return sizeof(float) * (rows * Tile::kBlockRows * Tile::kWidth + 2 * kTile * Tile::kPitch +
                          weights * Tile::kBlockRows * kTile);
}

template <int kColumns>
void Forward(const AttentionArguments& a, Stream stream) {
  constexpr int64_t kRows = AttentionTile<kColumns>::kBlockRows;
  Launch(AttentionForward<kColumns>, AttentionGrid(a.queries, kRows, a.heads, a.batch),
         kAttentionThreads, AttentionBytes<kColumns>(1, 1), stream, a);
}

template <int kColumns>
void Backward(const AttentionArguments& a, Stream stream) {
  constexpr int64_t kRows = AttentionTile<kColumns>::kBlockRows;
  RunAttentionDots(a, stream);
  Launch(AttentionQueryGrad<kColumns>, AttentionGrid(a.queries, kRows, a.heads, a.batch),
         kAttentionThreads, AttentionBytes<kColumns>(2, 1), stream, a);
  Launch(AttentionKeyGrad<kColumns>, AttentionGrid(a.keys, kRows, a.kv_heads, a.batch),
         kAttentionThreads, AttentionBytes<kColumns>(2, 2), stream, a);
}

}  // namespace

void RunAttention(const AttentionArguments& a, Stream stream) {
  if (a.size <= 2 * kWarp) return Forward<2>(a, stream);
  if (a.size <= 4 * kWarp) return Forward<4>(a, stream);
  Forward<8>(a, stream);
}

void RunAttentionDots(const AttentionArguments& a, Stream stream) {
  Launch(AttentionDots, Grid{Blocks(a.batch * a.heads * a.queries, kAttentionWarps)},
         kAttentionThreads, 0, stream, a);
}

void RunAttentionGrad(const AttentionArguments& a, Stream stream) {
  if (a.size <= 2 * kWarp) return Backward<2>(a, stream);
  if (a.size <= 4 * kWarp) return Backward<4>(a, stream);
  Backward<8>(a, stream);
}

}  // namespace lepton::kernels::cuda
