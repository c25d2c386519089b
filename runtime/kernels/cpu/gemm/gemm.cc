#include "runtime/kernels/cpu/gemm/gemm.h"

#include <algorithm>
#include <cstring>

#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/kernels/cpu/gemm/micro.h"
#include "runtime/kernels/cpu/simd/loops.h"
#include "runtime/tensor/buffer.h"

namespace lepton::kernels::gemm {
namespace {

constexpr int64_t kChunkBytes = 384 << 10;  // of the packed left side: it stays in L2
constexpr int64_t kMostChunkRows = 288;     // so that a column of blocks of c stays in L1 and L2

int64_t RoundUp(int64_t value, int64_t step) {
  return (value + step - 1) / step * step;
}

int64_t CeilDiv(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// What a thread packs into and multiplies in; grows to what was needed most.
struct Scratch {
  Buffer left, block;
};

template <typename T>
T* Grown(Buffer& buffer, int64_t bytes) {
  if (buffer.size() < static_cast<size_t>(bytes)) buffer = Buffer(bytes);
  return buffer.as<T>();
}

Scratch& ThreadScratch() {
  thread_local Scratch scratch;
  return scratch;
}

class MicroScope {
 public:
  explicit MicroScope(const Micro& micro) : micro_(micro) { micro_.enter(); }
  ~MicroScope() { micro_.leave(); }
  MicroScope(const MicroScope&) = delete;
  MicroScope& operator=(const MicroScope&) = delete;

 private:
  const Micro& micro_;
};

}  // namespace

Product::Product(int64_t rows, int64_t columns, int64_t inner, DType dtype, const Source& a,
                 const Source& b)
    : Product(rows, columns, inner, a, b, dtype == DType::kBF16 ? Bf16Micro() : F32Micro()) {}

Product::Product(int64_t rows, int64_t columns, int64_t inner, const Source& a, const Source& b,
                 const Micro& micro)
    : rows_(rows),
      columns_(columns),
      inner_(inner),
      a_(a),
      b_(b),
      micro_(micro),
      padded_inner_(RoundUp(inner, micro.step)) {}

size_t Product::packed_bytes() const {
  return static_cast<size_t>(panels() * kPanelColumns * padded_inner_ * micro_.element);
}

void Product::PackPanels(const void* b, void* packed, int64_t first, int64_t count) const {
  const int64_t panel_bytes = kPanelColumns * padded_inner_ * micro_.element;
  const int64_t column = first * kPanelColumns;
  const Part part{b,      b_,           column, std::min(count * kPanelColumns, columns_ - column),
                  inner_, padded_inner_};
  micro_.pack_panels(part, static_cast<char*>(packed) + first * panel_bytes);
}

void Product::PackRight(const void* b, void* packed) const {
  constexpr int64_t kGrain = 1 << 15;  // elements for which another thread is worth waking
  const int64_t grain = std::max<int64_t>(1, kGrain / (kPanelColumns * padded_inner_));
  ComputeLoop(panels(), grain,
              [&](int64_t begin, int64_t end) { PackPanels(b, packed, begin, end - begin); });
}

// Chunks of rows that fit the cache, as many for each thread; where there are too few rows for
// that, the columns are divided, too.
Product::Grid Product::MakeGrid(int threads) const {
  Grid grid;
  const int64_t fitting = kChunkBytes / (padded_inner_ * micro_.element);
  const int64_t most = std::clamp(fitting / micro_.block_rows * micro_.block_rows,
                                  micro_.block_rows, kMostChunkRows);
  const int64_t wanted = RoundUp(CeilDiv(rows_, most), threads);
  grid.chunk_rows = RoundUp(CeilDiv(rows_, wanted), micro_.block_rows);
  grid.chunks = CeilDiv(rows_, grid.chunk_rows);
  grid.groups = 1;
  if (grid.chunks < threads) grid.groups = std::min(panels(), CeilDiv(threads, grid.chunks));
  grid.group_panels = CeilDiv(panels(), grid.groups);
  grid.groups = CeilDiv(panels(), grid.group_panels);
  return grid;
}

void Product::RunTask(const void* a, const void* packed_b, const Finisher& finisher,
                      int64_t first_row, int64_t rows, int64_t first_panel, int64_t panels) const {
  const MicroScope scope(micro_);
  Scratch& scratch = ThreadScratch();
  const int64_t blocks = CeilDiv(rows, micro_.block_rows);
  const int64_t block_bytes = micro_.block_rows * padded_inner_ * micro_.element;
  const int64_t panel_bytes = kPanelColumns * padded_inner_ * micro_.element;
  const int64_t block_floats = micro_.block_rows * kPanelColumns;
  char* left = Grown<char>(scratch.left, blocks * block_bytes);
  float* c = Grown<float>(scratch.block, blocks * block_floats * 4);
  const auto rows_of = [&](int64_t block) {
    return std::min(micro_.block_rows, rows - block * micro_.block_rows);
  };
  micro_.pack_blocks({a, a_, first_row, rows, inner_, padded_inner_}, left);
  for (int64_t panel = first_panel; panel < first_panel + panels; ++panel) {
    const char* right = static_cast<const char*>(packed_b) + panel * panel_bytes;
    for (int64_t k = 0; k < padded_inner_; k += micro_.chunk) {
      const int64_t inner = std::min(micro_.chunk, padded_inner_ - k);
      for (int64_t block = 0; block < blocks; ++block) {
        micro_.multiply(rows_of(block), inner,
                        left + block * block_bytes + k * micro_.block_rows * micro_.element,
                        right + k * kPanelColumns * micro_.element, c + block * block_floats,
                        k > 0);
      }
    }
    const int64_t column = panel * kPanelColumns;
    finisher.Finish(first_row, rows, column, std::min(kPanelColumns, columns_ - column), c);
  }
}

void Product::Run(const void* a, const void* packed_b, const Finisher& finisher) const {
  // Less than this many multiplications is not worth waking another thread.
  constexpr int64_t kWorkForThreads = 1 << 18;
  const int threads =
      rows_ * columns_ * inner_ < kWorkForThreads ? 1 : ThreadPool::Compute().threads();
  const Grid grid = MakeGrid(threads);
  ComputeLoop(grid.chunks * grid.groups, threads == 1 ? grid.chunks * grid.groups : 1,
              [&](int64_t begin, int64_t end) {
                for (int64_t task = begin; task < end; ++task) {
                  const int64_t row = task / grid.groups * grid.chunk_rows;
                  const int64_t panel = task % grid.groups * grid.group_panels;
                  RunTask(a, packed_b, finisher, row, std::min(grid.chunk_rows, rows_ - row), panel,
                          std::min(grid.group_panels, panels() - panel));
                }
              });
}

void Product::RunAlone(const void* a, const void* packed_b, const Finisher& finisher) const {
  const FlushDenormals flush;
  const Grid grid = MakeGrid(1);
  for (int64_t row = 0; row < rows_; row += grid.chunk_rows) {
    RunTask(a, packed_b, finisher, row, std::min(grid.chunk_rows, rows_ - row), 0, panels());
  }
}

void StoreFinisher::Finish(int64_t first_row, int64_t rows, int64_t first_column, int64_t columns,
                           float* block) const {
  for (int64_t row = 0; row < rows; ++row) {
    const float* from = block + row * kPanelColumns;
    const int64_t at = (first_row + row) * pitch_ + first_column;
    if (dtype_ == DType::kBF16) {
      simd::BestLoops().to_bf16(columns, from, static_cast<uint16_t*>(c_) + at);
    } else if (columns == kPanelColumns) {
      std::memcpy(static_cast<float*>(c_) + at, from, kPanelColumns * sizeof(float));
    } else {
      std::memcpy(static_cast<float*>(c_) + at, from, columns * sizeof(float));
    }
  }
}

}  // namespace lepton::kernels::gemm
