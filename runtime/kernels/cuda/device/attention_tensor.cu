// Attention of bf16 on tensor cores (Dao 2023, "FlashAttention-2": the same order of work). A block
// of four warps holds 64 rows, 16 a warp, and walks over tiles of 32 of the others. Scores and
// slopes are f32; probabilities are rounded to bf16 before they are multiplied.
#include "runtime/kernels/cuda/device/attention.cuh"
#include "runtime/kernels/cuda/device/tensor_cores.cuh"

namespace lepton::kernels::cuda {
namespace {

constexpr int kWarpRows = 16;
constexpr int kBlockRows = kWarpRows * kAttentionWarps;
constexpr int kWalk = 32;              // rows of a tile
constexpr int kWalkTiles = kWalk / 8;  // result tiles across it

// kWidth: a head, filled up with zeros. Pitches keep lanes of different rows in different banks.
template <int kWidth>
struct TensorTile {
  static constexpr int kPitch = kWidth + 8;
  static constexpr int kSteps = kWidth / 16;  // of a product over a head
  static constexpr int kTiles = kWidth / 8;   // result tiles across a head
  static constexpr int kTurnedPitch = kWalk + 8;
  static constexpr int kRowsSize = kBlockRows * kPitch;  // elements
  static constexpr int kWalkSize = kWalk * kPitch;
  static constexpr int kTurnedSize = kWidth * kTurnedPitch;
};

// Rows of a head into shared memory, and, if `turned` is not null, their columns as rows there.
template <int kWidth>
__device__ void LoadTile(const void* data, int64_t place, int64_t row_pitch, int64_t there,
                         int rows, int64_t size, Bf16* to, Bf16* turned) {
  using Tile = TensorTile<kWidth>;
  const Bf16* from = static_cast<const Bf16*>(data) + place;
  for (int i = threadIdx.x; i < rows * kWidth / 2; i += kAttentionThreads) {
    const int row = i / (kWidth / 2), column = i % (kWidth / 2) * 2;
    const bool inside = row < there && column < size;
    const uint32_t pair = inside ? PairAt(from + row * row_pitch + column) : 0;
    if (to != nullptr) *reinterpret_cast<uint32_t*>(to + row * Tile::kPitch + column) = pair;
    if (turned == nullptr) continue;
    turned[column * Tile::kTurnedPitch + row].bits = static_cast<uint16_t>(pair);
    turned[(column + 1) * Tile::kTurnedPitch + row].bits = static_cast<uint16_t>(pair >> 16);
  }
}

// Products of the warp's rows with the rows of a tile.
template <int kWidth>
__device__ void RowProducts(const Bf16* rows, const Bf16* tile, float (&sums)[kWalkTiles][4]) {
  using Tile = TensorTile<kWidth>;
#pragma unroll
  for (int j = 0; j < kWalkTiles; ++j) sums[j][0] = sums[j][1] = sums[j][2] = sums[j][3] = 0;
#pragma unroll
  for (int step = 0; step < Tile::kSteps; ++step) {
    const LeftFragment left = LeftRows(rows, Tile::kPitch, step);
#pragma unroll
    for (int j = 0; j < kWalkTiles; ++j) {
      MultiplyAdd(sums[j], left, RightColumns(tile + j * 8 * Tile::kPitch, Tile::kPitch, step));
    }
  }
}

// sums += weights (of the warp's rows by those of the tile) times the tile, which lies turned.
template <int kWidth>
__device__ void AddProducts(const float (&weights)[kWalkTiles][4], const Bf16* turned,
                            float (&sums)[TensorTile<kWidth>::kTiles][4]) {
  using Tile = TensorTile<kWidth>;
#pragma unroll
  for (int step = 0; step < kWalk / 16; ++step) {
    const LeftFragment left = LeftOfResult(weights, step);
#pragma unroll
    for (int j = 0; j < Tile::kTiles; ++j) {
      MultiplyAdd(sums[j], left,
                  RightColumns(turned + j * 8 * Tile::kTurnedPitch, Tile::kTurnedPitch, step));
    }
  }
}

// Row `half` (0: g, 1: g + 8) of a result, into a row of bf16.
template <int kTiles>
__device__ void StoreResult(const float (&sums)[kTiles][4], int half, float factor, Bf16* row,
                            int64_t size) {
#pragma unroll
  for (int j = 0; j < kTiles; ++j) {
    const int column = j * 8 + LanePair();
    if (column >= size) continue;
    *reinterpret_cast<uint32_t*>(row + column) =
        PairOf(sums[j][2 * half] * factor, sums[j][2 * half + 1] * factor);
  }
}

template <int kWidth>
__global__ void TensorForward(const AttentionArguments a) {
  using Tile = TensorTile<kWidth>;
  Bf16* const queries = Shared<Bf16>();
  Bf16* const keys = queries + Tile::kRowsSize;
  Bf16* const values = keys + Tile::kWalkSize;  // turned
  const int warp = threadIdx.x / kWarp;
  const AttentionBlock block = BlockOf(a.queries, kBlockRows, a.heads);
  const AttentionHead h = QueryHead(a, block);
  const int64_t first = block.first;
  const int64_t last = first + kBlockRows < a.queries ? first + kBlockRows : a.queries;
  LoadTile<kWidth>(a.q, QueryPlace(a, h, first), a.q_pitch, last - first, kBlockRows, a.size,
                   queries, nullptr);
  const int64_t own = first + warp * kWarpRows + LaneRow();
  float top[2] = {-INFINITY, -INFINITY}, sum[2] = {}, y[Tile::kTiles][4] = {};
  const int64_t end = EndKey(a, last - 1);
  for (int64_t start = FirstKey(a, first); start < end; start += kWalk) {
    __syncthreads();
    LoadTile<kWidth>(a.k, KeyPlace(a, h, start), a.kv_pitch, a.keys - start, kWalk, a.size, keys,
                     nullptr);
    LoadTile<kWidth>(a.v, ValuePlace(a, h, start), a.kv_pitch, a.keys - start, kWalk, a.size,
                     nullptr, values);
    __syncthreads();
    float scores[kWalkTiles][4];
    RowProducts<kWidth>(queries + warp * kWarpRows * Tile::kPitch, keys, scores);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t query = own + half * 8;
      float highest = top[half];
      for (int j = 0; j < kWalkTiles; ++j) {
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          const int64_t key = start + j * 8 + LanePair() + i % 2;
          const bool sees = Sees(a, query, key);
          const float extra = sees && a.bias != nullptr ? a.bias[h.image * a.keys + key] : 0.0f;
          scores[j][i] = sees ? scores[j][i] * a.scale + extra : -INFINITY;
          highest = fmaxf(highest, scores[j][i]);
        }
      }
      highest = RowMaxOfQuad(highest);
      // Until a row has seen a key there is nothing to rescale, and nothing to add.
      const float rescale = top[half] == -INFINITY ? 0.0f : expf(top[half] - highest);
      float more = 0;
      for (int j = 0; j < kWalkTiles; ++j) {
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          scores[j][i] = scores[j][i] == -INFINITY ? 0.0f : expf(scores[j][i] - highest);
          more += scores[j][i];
        }
      }
      sum[half] = sum[half] * rescale + RowSumOfQuad(more);
      top[half] = highest;
      for (int j = 0; j < Tile::kTiles; ++j) {
        y[j][2 * half] *= rescale;
        y[j][2 * half + 1] *= rescale;
      }
    }
    AddProducts<kWidth>(scores, values, y);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t query = own + half * 8;
    if (query >= a.queries) continue;
    StoreResult(y, half, 1.0f / sum[half], static_cast<Bf16*>(a.y) + OutputPlace(a, h, query),
                a.size);
    if (LanePair() == 0) a.log_sum[RowPlace(a, h, query)] = top[half] + logf(sum[half]);
  }
}

// From scores and dweights of one element to p and dscore.
struct Slope {
  float p, dscore;
};
__device__ Slope SlopeOf(const AttentionArguments& a, const AttentionHead& h, int64_t query,
                         int64_t key, float score, float dweight) {
  if (key >= a.keys || !Sees(a, query, key)) return {0, 0};
  const int64_t row = RowPlace(a, h, query);
  const float extra = a.bias != nullptr ? a.bias[h.image * a.keys + key] : 0.0f;
  const float p = expf(score * a.scale + extra - a.log_sum[row]);
  return {p, a.scale * p * (dweight - a.dot[row])};
}

template <int kWidth>
__global__ void TensorQueryGrad(const AttentionArguments a) {
  using Tile = TensorTile<kWidth>;
  Bf16* const queries = Shared<Bf16>();
  Bf16* const slopes = queries + Tile::kRowsSize;
  Bf16* const keys = slopes + Tile::kRowsSize;
  Bf16* const values = keys + Tile::kWalkSize;
  Bf16* const turned_keys = values + Tile::kWalkSize;
  const int warp = threadIdx.x / kWarp, own_rows = warp * kWarpRows * Tile::kPitch;
  const AttentionBlock block = BlockOf(a.queries, kBlockRows, a.heads);
  const AttentionHead h = QueryHead(a, block);
  const int64_t first = block.first;
  const int64_t last = first + kBlockRows < a.queries ? first + kBlockRows : a.queries;
  LoadTile<kWidth>(a.q, QueryPlace(a, h, first), a.q_pitch, last - first, kBlockRows, a.size,
                   queries, nullptr);
  LoadTile<kWidth>(a.dy, OutputPlace(a, h, first), a.y_pitch, last - first, kBlockRows, a.size,
                   slopes, nullptr);
  const int64_t own = first + warp * kWarpRows + LaneRow();
  float dq[Tile::kTiles][4] = {};
  const int64_t end = EndKey(a, last - 1);
  for (int64_t start = FirstKey(a, first); start < end; start += kWalk) {
    __syncthreads();
    LoadTile<kWidth>(a.k, KeyPlace(a, h, start), a.kv_pitch, a.keys - start, kWalk, a.size, keys,
                     turned_keys);
    LoadTile<kWidth>(a.v, ValuePlace(a, h, start), a.kv_pitch, a.keys - start, kWalk, a.size,
                     values, nullptr);
    __syncthreads();
    float scores[kWalkTiles][4], dweights[kWalkTiles][4];
    RowProducts<kWidth>(queries + own_rows, keys, scores);
    RowProducts<kWidth>(slopes + own_rows, values, dweights);
    for (int j = 0; j < kWalkTiles; ++j) {
      for (int i = 0; i < 4; ++i) {
        const int64_t key = start + j * 8 + LanePair() + i % 2;
        scores[j][i] = SlopeOf(a, h, own + i / 2 * 8, key, scores[j][i], dweights[j][i]).dscore;
      }
    }
    AddProducts<kWidth>(scores, turned_keys, dq);
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t query = own + half * 8;
    if (query >= a.queries) continue;
    StoreResult(dq, half, 1, static_cast<Bf16*>(a.dq) + QueryPlace(a, h, query), a.size);
  }
}

// Rows are keys here, and the tiles are of queries, over all heads that share the keys, in order.
template <int kWidth>
__global__ void TensorKeyGrad(const AttentionArguments a) {
  using Tile = TensorTile<kWidth>;
  Bf16* const keys = Shared<Bf16>();
  Bf16* const values = keys + Tile::kRowsSize;
  Bf16* const queries = values + Tile::kRowsSize;
  Bf16* const slopes = queries + Tile::kWalkSize;
  Bf16* const turned_queries = slopes + Tile::kWalkSize;
  Bf16* const turned_slopes = turned_queries + Tile::kTurnedSize;
  const int warp = threadIdx.x / kWarp, own_rows = warp * kWarpRows * Tile::kPitch;
  const int64_t group = a.heads / a.kv_heads;
  const AttentionBlock block = BlockOf(a.keys, kBlockRows, a.kv_heads);
  AttentionHead h{block.image, 0, block.head};
  const int64_t first = block.first;
  const int64_t last = first + kBlockRows < a.keys ? first + kBlockRows : a.keys;
  LoadTile<kWidth>(a.k, KeyPlace(a, h, first), a.kv_pitch, last - first, kBlockRows, a.size, keys,
                   nullptr);
  LoadTile<kWidth>(a.v, ValuePlace(a, h, first), a.kv_pitch, last - first, kBlockRows, a.size,
                   values, nullptr);
  const int64_t own = first + warp * kWarpRows + LaneRow();
  // The queries that see some of these keys.
  const int64_t shift = a.keys - a.queries;
  const int64_t begin = a.causal && first > shift ? first - shift : 0;
  int64_t end = a.queries;
  if (a.window > 0 && last - 1 + a.window - shift < end) end = last - 1 + a.window - shift;
  float dk[Tile::kTiles][4] = {}, dv[Tile::kTiles][4] = {};
  for (h.head = h.kv_head * group; h.head < (h.kv_head + 1) * group; ++h.head) {
    for (int64_t start = begin; start < end; start += kWalk) {
      __syncthreads();
      LoadTile<kWidth>(a.q, QueryPlace(a, h, start), a.q_pitch, a.queries - start, kWalk, a.size,
                       queries, turned_queries);
      LoadTile<kWidth>(a.dy, OutputPlace(a, h, start), a.y_pitch, a.queries - start, kWalk, a.size,
                       slopes, turned_slopes);
      __syncthreads();
      float weights[kWalkTiles][4], dscores[kWalkTiles][4];
      RowProducts<kWidth>(keys + own_rows, queries, weights);
      RowProducts<kWidth>(values + own_rows, slopes, dscores);
      for (int j = 0; j < kWalkTiles; ++j) {
        for (int i = 0; i < 4; ++i) {
          const int64_t query = start + j * 8 + LanePair() + i % 2;
          const Slope slope = SlopeOf(a, h, query, own + i / 2 * 8, weights[j][i], dscores[j][i]);
          weights[j][i] = slope.p;
          dscores[j][i] = slope.dscore;
        }
      }
      AddProducts<kWidth>(weights, turned_slopes, dv);
      AddProducts<kWidth>(dscores, turned_queries, dk);
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int64_t key = own + half * 8;
    if (key >= a.keys) continue;
    StoreResult(dk, half, 1, static_cast<Bf16*>(a.dk) + KeyPlace(a, h, key), a.size);
    StoreResult(dv, half, 1, static_cast<Bf16*>(a.dv) + ValuePlace(a, h, key), a.size);
  }
}

template <int kWidth>
void TensorBackward(const AttentionArguments& a, Stream stream) {
  using Tile = TensorTile<kWidth>;
  const size_t rows = 2 * Tile::kRowsSize, walk = 2 * Tile::kWalkSize;
  Launch(TensorQueryGrad<kWidth>, AttentionGrid(a.queries, kBlockRows, a.heads, a.batch),
         kAttentionThreads, sizeof(Bf16) * (rows + walk + Tile::kTurnedSize), stream, a);
  Launch(TensorKeyGrad<kWidth>, AttentionGrid(a.keys, kBlockRows, a.kv_heads, a.batch),
         kAttentionThreads, sizeof(Bf16) * (rows + walk + 2 * Tile::kTurnedSize), stream, a);
}

template <int kWidth>
void TensorForwardOf(const AttentionArguments& a, Stream stream) {
  using Tile = TensorTile<kWidth>;
  Launch(TensorForward<kWidth>, AttentionGrid(a.queries, kBlockRows, a.heads, a.batch),
         kAttentionThreads, sizeof(Bf16) * (Tile::kRowsSize + Tile::kWalkSize + Tile::kTurnedSize),
         stream, a);
}

}  // namespace

bool FitsTensorCores(const AttentionArguments& a) {
  // Pairs of neighbours are moved as one.
  const bool even = a.size % 2 == 0 && a.q_pitch % 2 == 0 && a.kv_pitch % 2 == 0 &&
                    a.y_pitch % 2 == 0 && a.k_start % 2 == 0 && a.v_start % 2 == 0;
  return a.bf16 && even && a.size <= 128;
}

void RunTensorAttention(const AttentionArguments& a, Stream stream) {
  if (a.size <= 64) return TensorForwardOf<64>(a, stream);
  TensorForwardOf<128>(a, stream);
}

void RunTensorAttentionGrad(const AttentionArguments& a, Stream stream) {
  RunAttentionDots(a, stream);
  if (a.size <= 64) return TensorBackward<64>(a, stream);
  TensorBackward<128>(a, stream);
}

}  // namespace lepton::kernels::cuda
