#include "runtime/kernels/cpu/gemm/gemm.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/kernels/cpu/gemm/ahead.h"
#include "runtime/kernels/cpu/gemm/micro.h"
#include "runtime/kernels/cpu/simd/loops.h"
#include "runtime/tensor/buffer.h"

namespace lepton::kernels::gemm {
namespace {

// What is read again and again must stay in L2, of 1 or 2 MiB, beside what passes by.
constexpr int64_t kGroupBytes = 3 << 17;  // ByBlock: of the packed right side
constexpr int64_t kLeastGroupPanels = 8;  // or packing the left side anew for each costs too much
constexpr int64_t kPartBytes = 5 << 17;   // ByInner: of c
constexpr int64_t kMostLeftBytes = 1 << 23;  // packed whole
constexpr int64_t kTasksPerThread = 4;       // what one thread is late with, another takes over

// ByInner: so many rows that a chunk of the left side fits, too, and the next one's numbers.
int64_t PartRows() {
  constexpr int64_t kLargeL2 = 1 << 21;
  static const bool large = ::sysconf(_SC_LEVEL2_CACHE_SIZE) >= kLargeL2;
  return large ? 384 : 192;
}

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

// Whether the rows of a block begin in the same ways of an L1 cache, which then cannot hold a line
// of each.
bool IsWayStride(const Source& a, const Micro& micro) {
  constexpr int64_t kWayBytes = 4096, kWays = 8;
  return micro.block_rows > kWays &&
         a.row_stride * static_cast<int64_t>(DTypeSize(a.dtype)) % kWayBytes == 0 &&
         micro.element == 4;
}

// Lines that will be written.
void Fetch(char* row, int64_t rows, int64_t bytes, int64_t pitch) {
  constexpr int64_t kLine = 64;
  for (int64_t i = 0; i < rows; ++i, row += pitch) {
    for (int64_t byte = 0; byte < bytes; byte += kLine) __builtin_prefetch(row + byte, 1);
  }
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
    : Product(rows, columns, inner, a, b,
              dtype == DType::kI8     ? Int8Micro()
              : dtype == DType::kBF16 ? Bf16Micro()
                                      : F32Micro()) {}

Product::Product(int64_t rows, int64_t columns, int64_t inner, const Source& a, const Source& b,
                 const Micro& micro)
    : rows_(rows),
      columns_(columns),
      inner_(inner),
      a_(a),
      b_(b),
      micro_(micro),
      padded_inner_(RoundUp(inner, micro.step)),
      left_panels_(micro.multiply_panels != nullptr && a.column_stride != 1 &&
                   rows >= 2 * micro.block_rows),
      direct_(micro.multiply_rows != nullptr &&
              static_cast<int64_t>(DTypeSize(a.dtype)) == micro.element && a.column_stride == 1 &&
              inner == padded_inner_ && !IsWayStride(a, micro)) {}

int64_t Product::panel_bytes() const {
  return kPanelColumns * padded_inner_ * micro_.element;
}

size_t Product::packed_bytes() const {
  return static_cast<size_t>(panels() * panel_bytes());
}

void Product::PackPanels(const void* b, void* packed, int64_t first, int64_t count) const {
  const int64_t column = first * kPanelColumns;
  const Part part{b,      b_,           column, std::min(count * kPanelColumns, columns_ - column),
                  inner_, padded_inner_};
  micro_.pack_panels(part, static_cast<char*>(packed) + first * panel_bytes());
}

void Product::PackRight(const void* b, void* packed) const {
  constexpr int64_t kGrain = 1 << 15;  // elements for which another thread is worth waking
  const int64_t grain = std::max<int64_t>(1, kGrain / (kPanelColumns * padded_inner_));
  ComputeLoop(panels(), grain,
              [&](int64_t begin, int64_t end) { PackPanels(b, packed, begin, end - begin); });
}

Product::Grid Product::MakeGrid(int threads) const {
  const int64_t block_rows = micro_.block_rows;
  const int64_t fitting = kGroupBytes / panel_bytes();
  const int64_t blocks = CeilDiv(rows_, block_rows);
  Grid grid;
  int64_t most_rows, most_panels;
  if (blocks <= 2 || fitting >= std::min(panels(), kLeastGroupPanels)) {
    grid.order = Order::kByBlock;
    // Two blocks meet each panel while it is in L2; packing them anew for every few costs less
    // than reading all panels twice.
    most_panels = std::max<int64_t>(1, blocks == 1 ? panels() : fitting);
    if (blocks == 2) most_panels = std::max<int64_t>(most_panels, 2);
    most_rows = RoundUp(CeilDiv(rows_, threads * kTasksPerThread), block_rows);
  } else {
    grid.order = Order::kByInner;
    // As many parts for each thread.
    const int64_t parts = RoundUp(CeilDiv(rows_, PartRows()), threads);
    most_rows = RoundUp(CeilDiv(rows_, parts), block_rows);
    most_panels = std::max<int64_t>(1, kPartBytes / (most_rows * kPanelColumns * 4));
  }
  grid.chunks = CeilDiv(rows_, most_rows);
  grid.chunk_rows = RoundUp(CeilDiv(rows_, grid.chunks), block_rows);
  grid.chunks = CeilDiv(rows_, grid.chunk_rows);
  grid.groups = CeilDiv(panels(), most_panels);
  // As many tasks for each thread.
  while (grid.groups < panels() && grid.groups * grid.chunks % threads != 0) ++grid.groups;
  grid.group_panels = CeilDiv(panels(), grid.groups);
  grid.groups = CeilDiv(panels(), grid.group_panels);
  return grid;
}

const void* Product::LeftRows(const void* a, int64_t row, int64_t k) const {
  return static_cast<const char*>(a) +
         (row * a_.row_stride + k * a_.column_stride) * static_cast<int64_t>(DTypeSize(a_.dtype));
}

// The chunk of `inner` that begins at `k`.
void Product::PackLeft(const void* a, int64_t row, int64_t rows, int64_t k, int64_t padded,
                       char* left) const {
  const int64_t inner = std::min(inner_ - k, padded);
  if (left_panels_) {
    const Source turned{a_.dtype, a_.column_stride, a_.row_stride};
    micro_.pack_panels({LeftRows(a, 0, k), turned, row, rows, inner, padded}, left);
  } else {
    micro_.pack_blocks({LeftRows(a, 0, k), a_, row, rows, inner, padded}, left);
  }
}

// What PackLeft packed times a panel.
void Product::Multiply(int64_t rows, int64_t inner, const char* left, const char* panel, float* c,
                       bool add) const {
  if (left_panels_) {
    micro_.multiply_panels(inner, left, panel, c, add);
  } else {
    micro_.multiply(rows, inner, left, panel, c, add);
  }
}

// A block of c that is summed up. It is finished after the next one was begun: the next one's
// multiplications and this one's finish then run side by side, and nothing waits for what the tile
// registers have just stored.
struct Product::Block {
  int64_t row, rows, panel;
  float* c = nullptr;
};

void Product::Finish(const Task& task, const Block& block) const {
  if (block.c == nullptr) return;
  const int64_t column = block.panel * kPanelColumns;
  task.finisher->Finish(block.row, block.rows, column, std::min(kPanelColumns, columns_ - column),
                        block.c);
}

// Before the part [k, end) of `inner` is multiplied: as much of the block, since more lines at once
// than a core can wait for would hold it up.
void Product::Expect(const Task& task, const Block& block, int64_t k, int64_t end) const {
  const int64_t column = block.panel * kPanelColumns;
  const int64_t from = block.rows * k / padded_inner_, to = block.rows * end / padded_inner_;
  if (from == to) return;
  task.finisher->Expect(block.row + from, to - from, column,
                        std::min(kPanelColumns, columns_ - column));
}

void Product::ByBlock(const Task& task) const {
  Scratch& scratch = ThreadScratch();
  char* left = Grown<char>(scratch.left, micro_.block_rows * padded_inner_ * micro_.element);
  const int64_t block_floats = micro_.block_rows * kPanelColumns;
  float* c = Grown<float>(scratch.block, 2 * block_floats * 4);
  float* next = c + block_floats;
  const int64_t end = task.first_row + task.rows;
  Block summed{};
  for (int64_t row = task.first_row; row < end; row += micro_.block_rows) {
    const int64_t rows = std::min(micro_.block_rows, end - row);
    const bool direct = direct_ && rows == micro_.block_rows;
    if (!direct) PackLeft(task.a, row, rows, 0, padded_inner_, left);
    for (int64_t panel = task.first_panel; panel < task.first_panel + task.panels; ++panel) {
      const char* right = static_cast<const char*>(task.packed_b) + panel * panel_bytes();
      for (int64_t k = 0; k < padded_inner_; k += micro_.chunk) {
        const int64_t inner = std::min(micro_.chunk, padded_inner_ - k);
        Expect(task, {row, rows, panel}, k, k + inner);
        const char* right_chunk = right + k * kPanelColumns * micro_.element;
        if (direct) {
          micro_.multiply_rows(inner, LeftRows(task.a, row, k), a_.row_stride, right_chunk, c,
                               k > 0);
        } else {
          Multiply(rows, inner, left + k * micro_.block_rows * micro_.element, right_chunk, c,
                   k > 0);
        }
      }
      Finish(task, summed);
      summed = {row, rows, panel, c};
      std::swap(c, next);
    }
  }
  Finish(task, summed);
}

void Product::ByInner(const Task& task) const {
  Scratch& scratch = ThreadScratch();
  const int64_t blocks = CeilDiv(task.rows, micro_.block_rows);
  const int64_t block_floats = micro_.block_rows * kPanelColumns;
  char* left =
      task.left != nullptr
          ? nullptr
          : Grown<char>(scratch.left, blocks * micro_.block_rows * micro_.chunk * micro_.element);
  float* c = Grown<float>(scratch.block, blocks * task.panels * block_floats * 4);
  Block summed{};
  for (int64_t k = 0; k < padded_inner_; k += micro_.chunk) {
    const int64_t inner = std::min(micro_.chunk, padded_inner_ - k);
    // f32 is packed: it is read again for each panel, and side by side that is faster.
    const int64_t direct = direct_ && micro_.element < 4 ? task.rows / micro_.block_rows : 0;
    const int64_t packed_from = direct * micro_.block_rows;
    if (left != nullptr) {
      PackLeft(task.a, task.first_row + packed_from, task.rows - packed_from, k, inner, left);
    }
    // The next chunk's rows, while this one is multiplied.
    Ahead ahead;
    const int64_t next = std::min(micro_.chunk, inner_ - k - inner);
    if (left != nullptr && next > 0 && a_.row_stride == 1) {
      const auto element = static_cast<int64_t>(DTypeSize(a_.dtype));
      ahead.Add(LeftRows(task.a, task.first_row + packed_from, k + inner), next,
                (task.rows - packed_from) * element, a_.column_stride * element);
    }
    const int64_t ahead_rows = CeilDiv(std::max<int64_t>(0, next), blocks * task.panels);
    for (int64_t i = 0; i < task.panels; ++i) {
      const int64_t panel = task.first_panel + i;
      const char* right = static_cast<const char*>(task.packed_b) + panel * panel_bytes() +
                          k * kPanelColumns * micro_.element;
      for (int64_t block = 0; block < blocks; ++block) {
        const int64_t row = block * micro_.block_rows;
        const int64_t rows = std::min(micro_.block_rows, task.rows - row);
        float* const sums = c + (i * blocks + block) * block_floats;
        const bool last = k + inner >= padded_inner_;
        if (last) Expect(task, {task.first_row + row, rows, panel}, 0, padded_inner_);
        if (block < direct) {
          micro_.multiply_rows(inner, LeftRows(task.a, task.first_row + row, k), a_.row_stride,
                               right, sums, k > 0);
        } else {
          const char* at =
              left == nullptr
                  ? task.left + PackedBlock(task.first_row / micro_.block_rows + block) +
                        k * micro_.block_rows * micro_.element
                  : left + (block - direct) * micro_.block_rows * inner * micro_.element;
          Multiply(rows, inner, at, right, sums, k > 0);
        }
        ahead.Fetch(ahead_rows);
        if (!last) continue;
        Finish(task, summed);
        summed = {task.first_row + row, rows, panel, sums};
      }
    }
  }
  Finish(task, summed);
}

// Tasks with the same panels follow each other.
void Product::RunTasks(const Grid& grid, const Task& whole, int64_t begin, int64_t end) const {
  const MicroScope scope(micro_);
  for (int64_t i = begin; i < end; ++i) {
    Task task = whole;
    task.first_row = i % grid.chunks * grid.chunk_rows;
    task.rows = std::min(grid.chunk_rows, rows_ - task.first_row);
    task.first_panel = i / grid.chunks * grid.group_panels;
    task.panels = std::min(grid.group_panels, panels() - task.first_panel);
    grid.order == Order::kByBlock ? ByBlock(task) : ByInner(task);
  }
}

int Product::Threads() const {
  // Less than this many multiplications is not worth waking another thread.
  constexpr int64_t kWorkForThreads = 1 << 18;
  return rows_ * columns_ * inner_ < kWorkForThreads ? 1 : ThreadPool::Compute().threads();
}

int64_t Product::PackedBlock(int64_t block) const {
  return block * micro_.block_rows * padded_inner_ * micro_.element;
}

// f32 is multiplied so much more slowly than it is packed that the memory is not worth it.
size_t Product::left_bytes() const {
  const Grid grid = MakeGrid(Threads());
  const int64_t bytes = PackedBlock(CeilDiv(rows_, micro_.block_rows));
  const bool helps = grid.order == Order::kByInner && grid.groups > 1 && !direct_ &&
                     micro_.element < 4 && bytes <= kMostLeftBytes;
  return helps ? static_cast<size_t>(bytes) : 0;
}

void Product::Run(const void* a, const void* packed_b, const Finisher& finisher, void* left) const {
  const int threads = Threads();
  const Grid grid = MakeGrid(threads);
  if (left != nullptr) {
    ComputeLoop(CeilDiv(rows_, micro_.block_rows), 1, [&](int64_t begin, int64_t end) {
      const int64_t first = begin * micro_.block_rows;
      PackLeft(a, first, std::min(end * micro_.block_rows, rows_) - first, 0, padded_inner_,
               static_cast<char*>(left) + PackedBlock(begin));
    });
  }
  const Task whole{a, packed_b, &finisher, static_cast<const char*>(left), 0, 0, 0, 0};
  const int64_t tasks = grid.chunks * grid.groups;
  ComputeLoop(tasks, threads == 1 ? tasks : 1,
              [&](int64_t begin, int64_t end) { RunTasks(grid, whole, begin, end); });
}

void Product::RunAlone(const void* a, const void* packed_b, const Finisher& finisher) const {
  const FlushDenormals flush;
  const Grid grid = MakeGrid(1);
  RunTasks(grid, {a, packed_b, &finisher, nullptr, 0, 0, 0, 0}, 0, grid.chunks * grid.groups);
}

void StoreFinisher::Expect(int64_t first_row, int64_t rows, int64_t first_column,
                           int64_t columns) const {
  const auto element = static_cast<int64_t>(DTypeSize(dtype_));
  Fetch(static_cast<char*>(c_) + (first_row * pitch_ + first_column) * element, rows,
        columns * element, pitch_ * element);
}

void StoreFinisher::Finish(int64_t first_row, int64_t rows, int64_t first_column, int64_t columns,
                           float* block) const {
  const int64_t at = first_row * pitch_ + first_column;
  const simd::Loops& loops = simd::BestLoops();
  if (dtype_ == DType::kBF16) {
    loops.to_bf16_rows(rows, columns, block, kPanelColumns, static_cast<uint16_t*>(c_) + at,
                       pitch_);
  } else {
    loops.copy_rows(rows, columns, block, kPanelColumns, static_cast<float*>(c_) + at, pitch_);
  }
}

void TurnedStoreFinisher::Expect(int64_t first_row, int64_t rows, int64_t first_column,
                                 int64_t columns) const {
  constexpr auto kElement = static_cast<int64_t>(sizeof(float));
  Fetch(reinterpret_cast<char*>(c_ + first_column * pitch_ + first_row), columns, rows * kElement,
        pitch_ * kElement);
}

void TurnedStoreFinisher::Finish(int64_t first_row, int64_t rows, int64_t first_column,
                                 int64_t columns, float* block) const {
  const Micro& micro = product_ == DType::kBF16 ? Bf16Micro() : F32Micro();
  micro.turn(rows, columns, block, c_ + first_column * pitch_ + first_row, pitch_);
}

}  // namespace lepton::kernels::gemm
