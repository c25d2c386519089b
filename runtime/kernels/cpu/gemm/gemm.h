// Matrix products: c [rows, columns] = op(a) [rows, inner] * op(b) [inner, columns], in f32 or with
// bf16 inputs, summed in f32. Written for what an engine needs and a BLAS does not promise:
//
// - One order of additions per element of c, whatever the number of rows, of threads, or the place
//   in the matrix: a row gives the same bits in any batch, without padding the batch.
// - bf16 is summed in one of the two orders of bf16_sums.h, with the same bits by AMX, AVX512_BF16,
//   AVX-512 and plain code. f32 gives the same bits on all CPUs with fused multiply-add.
// - i8 is summed exactly, in 32-bit integers: the blocks that a finisher gets hold these.
// - The right side is packed once for many products (weights), the left side as it is needed.
// - What follows the product (bias, activation, cast) runs on a block while it is in the L1 cache.
//
// Blocking (Goto and van de Geijn 2008, "Anatomy of high-performance matrix multiplication"): a
// micro-kernel keeps its part of c in registers, and one of two orders keeps what is read again in
// the caches (Order). The order changes nothing in the sums.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/tensor/dtype.h"

namespace lepton::kernels::gemm {

struct Micro;

// A matrix in memory: element (i, j) is at data[i * row_stride + j * column_stride]; one of the
// strides is 1.
struct Source {
  // f32 or bf16; f32 is rounded where the product is of bf16. i8 where the product is of i8.
  DType dtype = DType::kF32;
  int64_t row_stride = 0;
  int64_t column_stride = 1;
};

// Takes finished blocks of c. Threads: called from several at once, for disjoint blocks.
class Finisher {
 public:
  // Before the block is multiplied: fetches what Finish will read and write, whose rows lie too far
  // apart for the CPU to foresee.
  virtual void Expect(int64_t /*first_row*/, int64_t /*rows*/, int64_t /*first_column*/,
                      int64_t /*columns*/) const {}
  // `block`: [rows, kPanelColumns], of which the first `columns` count; the finisher may write to
  // it.
  virtual void Finish(int64_t first_row, int64_t rows, int64_t first_column, int64_t columns,
                      float* block) const = 0;

 protected:
  ~Finisher() = default;
};

inline constexpr int64_t kPanelColumns = 32;

class Product {
 public:
  // `dtype`: of the multiplication: kF32, kBF16 or kI8.
  Product(int64_t rows, int64_t columns, int64_t inner, DType dtype, const Source& a,
          const Source& b);
  // With the given micro-kernel, for tests.
  Product(int64_t rows, int64_t columns, int64_t inner, const Source& a, const Source& b,
          const Micro& micro);

  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }

  // Memory of a packed right side, aligned as Buffer.
  size_t packed_bytes() const;
  int64_t panel_bytes() const;  // of each, one after the other
  void PackRight(const void* b, void* packed) const;
  // The panels [first, first + count) alone; there are panels().
  void PackPanels(const void* b, void* packed, int64_t first, int64_t count) const;
  int64_t panels() const { return (columns_ + kPanelColumns - 1) / kPanelColumns; }
  // Memory for the left side, aligned as Buffer, with which Run packs it once instead of for every
  // group of panels; 0: it would not help.
  size_t left_bytes() const;
  // Spread over ThreadPool::Compute(). `left`: of left_bytes(), or null.
  void Run(const void* a, const void* packed_b, const Finisher& finisher,
           void* left = nullptr) const;
  // On the caller's thread alone.
  void RunAlone(const void* a, const void* packed_b, const Finisher& finisher) const;

 private:
  enum class Order {
    // The right side, or a group of its panels, stays in L2: block by block of rows, all panels,
    // each block of c finished at once.
    kByBlock,
    // For a long `inner`: a part of c stays in L2, and both sides pass by in chunks of `inner`.
    kByInner,
  };
  struct Grid {
    Order order;
    int64_t chunk_rows, chunks, group_panels, groups;
  };
  // The rows and panels that one thread computes at a time.
  struct Task {
    const void* a;
    const void* packed_b;
    const Finisher* finisher;
    const char* left;  // all of it packed, or null
    int64_t first_row, rows, first_panel, panels;
  };
  int Threads() const;
  Grid MakeGrid(int threads) const;
  void RunTasks(const Grid& grid, const Task& whole, int64_t begin, int64_t end) const;
  // Block `block` of rows of a left side that is packed whole.
  int64_t PackedBlock(int64_t block) const;
  void ByBlock(const Task& task) const;
  void ByInner(const Task& task) const;
  const void* LeftRows(const void* a, int64_t row, int64_t k) const;
  void PackLeft(const void* a, int64_t row, int64_t rows, int64_t k, int64_t padded,
                char* left) const;
  void Multiply(int64_t rows, int64_t inner, const char* left, const char* panel, float* c,
                bool add) const;
  struct Block;
  void Expect(const Task& task, const Block& block, int64_t k, int64_t end) const;
  void Finish(const Task& task, const Block& block) const;

  const int64_t rows_, columns_, inner_;
  const Source a_, b_;
  const Micro& micro_;
  const int64_t padded_inner_;  // a multiple of the micro-kernel's step
  // The left side lies along its rows and is packed as panels, which takes no turning; same bits.
  const bool left_panels_;
  const bool direct_;  // whole blocks of the left side are read where they lie
};

// Stores blocks as they are: f32, or rounded to bf16. c has `pitch` elements from row to row.
class StoreFinisher final : public Finisher {
 public:
  StoreFinisher(void* c, DType dtype, int64_t pitch) : c_(c), dtype_(dtype), pitch_(pitch) {}
  void Expect(int64_t first_row, int64_t rows, int64_t first_column,
              int64_t columns) const override;
  void Finish(int64_t first_row, int64_t rows, int64_t first_column, int64_t columns,
              float* block) const override;

 private:
  void* const c_;
  const DType dtype_;
  const int64_t pitch_;
};

// Stores the transpose of the product, in f32: of a product of turned matrices the wanted one.
class TurnedStoreFinisher final : public Finisher {
 public:
  // c [columns, rows], with `pitch` floats from row to row.
  TurnedStoreFinisher(float* c, int64_t pitch, DType product)
      : c_(c), pitch_(pitch), product_(product) {}
  void Expect(int64_t first_row, int64_t rows, int64_t first_column,
              int64_t columns) const override;
  void Finish(int64_t first_row, int64_t rows, int64_t first_column, int64_t columns,
              float* block) const override;

 private:
  float* const c_;
  const int64_t pitch_;
  const DType product_;
};

}  // namespace lepton::kernels::gemm
