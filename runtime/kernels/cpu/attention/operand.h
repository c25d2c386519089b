// The rows of one head, packed for products in one of the four ways that attention needs. `T` is
// the type of the inputs; rows lie `pitch` elements apart. Threads: plain values; each thread has
// its own memory.
#pragma once

#include <cstring>

#include "runtime/kernels/cpu/gemm/micro.h"
#include "runtime/kernels/cpu/simd/loops.h"
#include "runtime/tensor/buffer.h"
#include "runtime/tensor/tensor_view.h"

namespace lepton::kernels::attention {

inline int64_t PaddedTo(int64_t value, int64_t step) {
  return (value + step - 1) / step * step;
}

// Grows to what was needed most; keeps its memory.
class Storage {
 public:
  template <typename T>
  T* Get(int64_t count) {
    const size_t bytes = count * sizeof(T);
    if (buffer_.size() < bytes) buffer_ = Buffer(bytes + bytes / 4);
    return buffer_.as<T>();
  }

 private:
  Buffer buffer_;
};

// Rows of a head: [count, size].
struct Rows {
  const void* data;
  DType dtype;
  int64_t pitch, count, size;
};

inline Rows HeadRows(const TensorView& view, int64_t offset, int64_t pitch, int64_t count,
                     int64_t size) {
  return {view.as<char>() + offset * static_cast<int64_t>(DTypeSize(view.type.dtype)),
          view.type.dtype, pitch, count, size};
}

// How a product's sides are packed.
class Packed {
 public:
  // Left side [count, size]: blocks of rows.
  void Left(const gemm::Micro& micro, const Rows& rows) {
    padded_ = PaddedTo(rows.size, micro.step);
    unit_ = micro.block_rows * padded_ * micro.element;
    const int64_t blocks = (rows.count + micro.block_rows - 1) / micro.block_rows;
    data_ = storage_.Get<char>(blocks * unit_);
    micro.pack_blocks({rows.data, {rows.dtype, rows.pitch, 1}, 0, rows.count, rows.size, padded_},
                      data_);
  }
  // Left side [size, count]: the rows turned, `count` padded to a multiple of 32.
  void LeftTurned(const gemm::Micro& micro, const Rows& rows) {
    padded_ = PaddedTo(rows.count, gemm::kPanelColumns);
    unit_ = micro.block_rows * padded_ * micro.element;
    const int64_t blocks = (rows.size + micro.block_rows - 1) / micro.block_rows;
    data_ = storage_.Get<char>(blocks * unit_);
    micro.pack_blocks({rows.data, {rows.dtype, 1, rows.pitch}, 0, rows.size, rows.count, padded_},
                      data_);
  }
  // Right side [size, count]: the rows turned, panels of 32 rows.
  void RightTurned(const gemm::Micro& micro, const Rows& rows) {
    padded_ = PaddedTo(rows.size, micro.step);
    unit_ = gemm::kPanelColumns * padded_ * micro.element;
    const int64_t panels = (rows.count + gemm::kPanelColumns - 1) / gemm::kPanelColumns;
    data_ = storage_.Get<char>(panels * unit_);
    micro.pack_panels({rows.data, {rows.dtype, 1, rows.pitch}, 0, rows.count, rows.size, padded_},
                      data_);
  }
  // Right side [count, size]: panels of 32 columns, each all rows long.
  void Right(const gemm::Micro& micro, const Rows& rows) {
    padded_ = PaddedTo(rows.count, gemm::kPanelColumns);
    unit_ = gemm::kPanelColumns * padded_ * micro.element;
    const int64_t panels = (rows.size + gemm::kPanelColumns - 1) / gemm::kPanelColumns;
    data_ = storage_.Get<char>(panels * unit_);
    micro.pack_panels({rows.data, {rows.dtype, rows.pitch, 1}, 0, rows.size, rows.count, padded_},
                      data_);
  }

  const char* unit(int64_t index) const { return data_ + index * unit_; }
  // A panel of Right from row `k` on; k a multiple of 32.
  const char* from(const gemm::Micro& micro, int64_t panel, int64_t k) const {
    return unit(panel) + k * gemm::kPanelColumns * micro.element;
  }
  // A block of LeftTurned from `k` on; k a multiple of 32.
  const char* block_from(const gemm::Micro& micro, int64_t block, int64_t k) const {
    return unit(block) + k * micro.block_rows * micro.element;
  }
  int64_t inner() const { return padded_; }

 private:
  Storage storage_;
  char* data_ = nullptr;
  int64_t padded_ = 0, unit_ = 0;
};

// The rows of a head as a left side: where they lie if the micro-kernel can read them there, else
// packed.
class LeftRows {
 public:
  void Set(const gemm::Micro& micro, const Rows& rows) {
    rows_ = rows;
    direct_ = micro.multiply_rows != nullptr && rows.dtype == DType::kBF16 &&
              rows.size % micro.step == 0 && rows.count % micro.block_rows == 0;
    if (!direct_) packed_.Left(micro, rows);
  }
  // c [count, 32] = rows [first, first + count) times the panel, whose inner extent is `inner`;
  // `first` a multiple of the block's rows, count at most these.
  void Multiply(const gemm::Micro& micro, int64_t first, int64_t count, int64_t inner,
                const char* panel, float* c) const {
    if (direct_) {
      const auto* data = static_cast<const uint16_t*>(rows_.data) + first * rows_.pitch;
      micro.multiply_rows(inner, data, rows_.pitch, panel, c, false);
    } else {
      micro.multiply(count, inner, packed_.unit(first / micro.block_rows), panel, c, false);
    }
  }

 private:
  Rows rows_{};
  bool direct_ = false;
  Packed packed_;
};

// [rows, 32] blocks of a result that was summed turned, to rows of a tensor: element (i, j) of the
// block belongs to row j, column i. `factors`, by row, may be null.
inline void StoreTurned(const gemm::Micro& micro, const float* block, int64_t rows, int64_t size,
                        const float* factors, const TensorView& to, int64_t at, int64_t pitch,
                        float* turned) {
  const simd::Loops& loops = simd::BestLoops();
  micro.turn(size, rows, block, turned, size);
  if (factors != nullptr) loops.scale_rows(rows, size, factors, turned, size);
  if (to.type.dtype == DType::kBF16) {
    loops.to_bf16_rows(rows, size, turned, size, to.as<uint16_t>() + at, pitch);
  } else {
    loops.copy_rows(rows, size, turned, size, to.as<float>() + at, pitch);
  }
}

// For the products of one thread.
class TileScope {
 public:
  explicit TileScope(const gemm::Micro& micro) : micro_(micro) { micro_.enter(); }
  ~TileScope() { micro_.leave(); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;

 private:
  const gemm::Micro& micro_;
};

}  // namespace lepton::kernels::attention
