// Layer norm, root mean square norm, their gradients, and sums over rows and columns.
#include "runtime/kernels/cuda/device/rows.cuh"
#include "runtime/kernels/cuda/device/rows.h"

namespace lepton::kernels::cuda {
namespace {

__global__ void Norm(const NormArguments a) {
  const int64_t n = a.shape.n;
  const int64_t start = blockIdx.x * n;
  const float* x = a.x + start;
  float mean = 0;
  if (a.bias != nullptr) {
    mean = RowSum(n, [=](int64_t i) { return x[i]; }) / static_cast<float>(n);
  }
  const float squares = RowSum(n, [=](int64_t i) { return (x[i] - mean) * (x[i] - mean); });
  const float rstd = rsqrtf(squares / static_cast<float>(n) + a.epsilon);
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    const float bias = a.bias != nullptr ? a.bias[i] : 0.0f;
    const float y = (x[i] - mean) * rstd * a.gain[i] + bias;
    if (a.y != nullptr) a.y[start + i] = y;
    if (a.y_bf16 != nullptr) static_cast<Bf16*>(a.y_bf16)[start + i] = RoundToBf16(y);
  }
  if (threadIdx.x != 0) return;
  if (a.bias != nullptr) a.mean[blockIdx.x] = mean;
  a.rstd[blockIdx.x] = rstd;
}

// With h = (x - mean) * rstd and g = dy * gain: dx = rstd * (g - mean(g) - h * mean(g * h)); the
// root mean square norm has no mean(g).
__global__ void NormGradRows(const NormGradArguments a) {
  const int64_t n = a.shape.n;
  const int64_t start = blockIdx.x * n;
  const float* x = a.x + start;
  const Floats dy{a.dy, a.bf16_dy};
  const float mean = a.mean != nullptr ? a.mean[blockIdx.x] : 0.0f;
  const float rstd = a.rstd[blockIdx.x];
  float mean_g = 0;
  if (a.mean != nullptr) {
    mean_g = RowSum(n, [=](int64_t i) { return dy[start + i] * a.gain[i]; });
    mean_g /= static_cast<float>(n);
  }
  const float mean_gh =
      RowSum(n, [=](int64_t i) { return dy[start + i] * a.gain[i] * ((x[i] - mean) * rstd); }) /
      static_cast<float>(n);
  for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
    const float h = (x[i] - mean) * rstd;
    a.dx[start + i] = rstd * (dy[start + i] * a.gain[i] - mean_g - h * mean_gh);
  }
}

// Column sums in two stages, so that the order of the sum depends on the shape alone: a block sums
// a tile of 32 columns over a chunk of rows, then one thread per column sums the chunks.
constexpr int kTileColumns = 32;
constexpr int kTileRows = 8;  // rows that a block reads at once
constexpr int64_t kMostChunks = 64;
constexpr int64_t kChunkRows = 64;  // at least

int64_t Chunks(int64_t rows) {
  const int64_t chunks = Blocks(rows, kChunkRows);
  return chunks < 1 ? 1 : chunks > kMostChunks ? kMostChunks : chunks;
}

// Sums of first(row, column), and of second, over the block's rows.
template <typename Terms>
__device__ void SumTile(RowsShape shape, int64_t rows_per_chunk, float* sums, float* second_sums,
                        const Terms& terms) {
  __shared__ float tile[2][kTileRows][kTileColumns];
  const int lane = threadIdx.x % kTileColumns;
  const int line = threadIdx.x / kTileColumns;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kTileColumns + lane;
  const int64_t begin = static_cast<int64_t>(blockIdx.y) * rows_per_chunk;
  const int64_t end = begin + rows_per_chunk < shape.rows ? begin + rows_per_chunk : shape.rows;
  float first = 0, second = 0;
  if (column < shape.n) {
    for (int64_t row = begin + line; row < end; row += kTileRows) {
      terms(row, column, &first, &second);
    }
  }
  tile[0][line][lane] = first;
  tile[1][line][lane] = second;
  __syncthreads();
  if (line != 0 || column >= shape.n) return;
  first = second = 0;
  for (int i = 0; i < kTileRows; ++i) {
    first += tile[0][i][lane];
    second += tile[1][i][lane];
  }
  sums[blockIdx.y * shape.n + column] = first;
  if (second_sums != nullptr) second_sums[blockIdx.y * shape.n + column] = second;
}

__global__ void NormGradColumns(const NormGradArguments a, int64_t rows_per_chunk) {
  const int64_t n = a.shape.n;
  const Floats dy{a.dy, a.bf16_dy};
  float* second = a.mean == nullptr ? nullptr : a.workspace + gridDim.y * n;
  SumTile(a.shape, rows_per_chunk, a.workspace, second,
          [=](int64_t row, int64_t column, float* dgain, float* dbias) {
            const float mean = a.mean != nullptr ? a.mean[row] : 0.0f;
            const float g = dy[row * n + column];
            *dgain += g * ((a.x[row * n + column] - mean) * a.rstd[row]);
            *dbias += g;
          });
}

__global__ void ColumnSums(RowsShape shape, int64_t rows_per_chunk, Floats x, float* sums) {
  SumTile(
      shape, rows_per_chunk, sums, nullptr,
      [=](int64_t row, int64_t column, float* sum, float*) { *sum += x[row * shape.n + column]; });
}

__global__ void SumChunks(int64_t n, int64_t chunks, const float* sums, float factor,
                          MutableFloats y) {
  const int64_t column = GlobalIndex();
  if (column >= n) return;
  float sum = 0;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += sums[chunk * n + column];
  y.Set(column, sum * factor);
}

__global__ void RowSums(int64_t n, Floats x, float factor, MutableFloats y) {
  const int64_t start = blockIdx.x * n;
  const float sum = RowSum(n, [=](int64_t i) { return x[start + i]; });
  if (threadIdx.x == 0) y.Set(blockIdx.x, sum * factor);
}

Grid TileGrid(RowsShape shape, int64_t chunks) {
  return {Blocks(shape.n, kTileColumns), chunks};
}

void FinishSums(int64_t n, int64_t chunks, const float* sums, float factor, MutableFloats y,
                Stream stream) {
  LaunchFlat(SumChunks, Grid{Blocks(n, 256)}, 256, stream, n, chunks, sums, factor, y);
}

}  // namespace

void RunNorm(const NormArguments& arguments, Stream stream) {
  Launch(Norm, Grid{arguments.shape.rows}, RowThreads(arguments.shape.n), 0, stream, arguments);
}

int64_t ColumnSumsWorkspace(RowsShape shape) {
  return Chunks(shape.rows) * shape.n * static_cast<int64_t>(sizeof(float));
}

int64_t NormGradWorkspace(RowsShape shape) {
  return 2 * ColumnSumsWorkspace(shape);
}

void RunNormGrad(const NormGradArguments& a, Stream stream) {
  Launch(NormGradRows, Grid{a.shape.rows}, RowThreads(a.shape.n), 0, stream, a);
  const int64_t chunks = Chunks(a.shape.rows);
  Launch(NormGradColumns, TileGrid(a.shape, chunks), kTileColumns * kTileRows, 0, stream, a,
         Blocks(a.shape.rows, chunks));
  FinishSums(a.shape.n, chunks, a.workspace, 1, {a.dgain, 0}, stream);
  if (a.dbias == nullptr) return;
  FinishSums(a.shape.n, chunks, a.workspace + chunks * a.shape.n, 1, {a.dbias, 0}, stream);
}

void RunColumnSums(RowsShape shape, const void* x, bool bf16, float factor, void* y, bool bf16_y,
                   float* workspace, Stream stream) {
  const int64_t chunks = Chunks(shape.rows);
  Launch(ColumnSums, TileGrid(shape, chunks), kTileColumns * kTileRows, 0, stream, shape,
         Blocks(shape.rows, chunks), Floats{x, bf16}, workspace);
  FinishSums(shape.n, chunks, workspace, factor, {y, bf16_y}, stream);
}

void RunRowSums(RowsShape shape, const void* x, bool bf16, float factor, void* y, bool bf16_y,
                Stream stream) {
  Launch(RowSums, Grid{shape.rows}, RowThreads(shape.n), 0, stream, shape.n, Floats{x, bf16},
         factor, MutableFloats{y, bf16_y});
}

}  // namespace lepton::kernels::cuda
