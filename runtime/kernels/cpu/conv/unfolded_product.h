// A convolution as the product of unfolded images (conv_rows.h), which are unfolded as they are
// needed, with weights packed in panels, for bf16 and for 8-bit integers.
// Threads: Run spreads its work; the rest are plain values.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/kernels/cpu/conv/conv_rows.h"
#include "runtime/kernels/cpu/conv/pixel_target.h"
#include "runtime/kernels/cpu/conv/scratch.h"
#include "runtime/kernels/cpu/gemm/micro.h"
#include "runtime/kernels/cpu/simd/loops.h"

namespace lepton::kernels::conv {

// `Number`: uint16_t (bf16) or int8_t.
template <typename Number>
class UnfoldedProduct {
 public:
  UnfoldedProduct(const gemm::Micro& micro, const Rows& rows, int64_t out_channels)
      : micro_(micro),
        rows_(rows),
        inner_(RoundUp(rows.columns(), micro.step)),
        chunk_(RoundUp(CeilDiv(inner_, CeilDiv(inner_, kMostChunkBytes / kBytes)), micro.step)),
        panels_(CeilDiv(out_channels, gemm::kPanelColumns)) {}

  int64_t panels() const { return panels_; }
  // Of the weights: panel p, packed to `inner()` numbers a column, begins at p * panel_bytes().
  int64_t inner() const { return inner_; }
  int64_t panel_bytes() const { return gemm::kPanelColumns * inner_ * micro_.element; }
  int64_t packed_bytes() const { return panels_ * panel_bytes(); }

  // store(c, first, count) gets rows [first, first + count) of `rows` in all, at most a block of
  // them: c has the panels one after the other, [block_rows, kPanelColumns] each, which store may
  // change. Uses ThreadMemory<1>, <2> and <3>.
  template <typename Store>
  void Run(const Number* images, const char* packed, int64_t rows, const Store& store) const {
    const int threads = ThreadPool::Compute().threads();
    const int64_t group = std::min(
        kMostGroupRows, RoundUp(CeilDiv(rows, threads * kTasksPerThread), micro_.block_rows));
    ComputeLoop(CeilDiv(rows, group), 1, [&](int64_t begin, int64_t end) {
      const ConvScope scope(micro_);
      for (int64_t i = begin; i < end; ++i) {
        Group(images, packed, i * group, std::min(group, rows - i * group), store);
      }
    });
  }

 private:
  static constexpr int64_t kBytes = sizeof(Number);
  static constexpr int64_t kMostChunkBytes = 1280;  // of the inner axis: a group's stay in L2
  static constexpr int64_t kMostGroupRows = 256;    // rows that are computed together
  static constexpr int64_t kTasksPerThread = 4;
  static constexpr DType kType = kBytes == 1 ? DType::kI8 : DType::kBF16;

  // Rows [first, first + count): chunk by chunk of the inner axis, all output channels.
  template <typename Store>
  void Group(const Number* images, const char* packed, int64_t first, int64_t count,
             const Store& store) const {
    const int64_t blocks = CeilDiv(count, micro_.block_rows);
    const int64_t block_floats = micro_.block_rows * gemm::kPanelColumns;
    const int64_t block_elements = micro_.block_rows * chunk_;
    auto* unfolded = reinterpret_cast<Number*>(ThreadMemory<1>(blocks * block_elements * kBytes));
    char* left = ThreadMemory<2>(block_elements * micro_.element);
    auto* c = reinterpret_cast<float*>(ThreadMemory<3>(blocks * panels_ * block_floats * 4));
    for (int64_t k = 0; k < inner_; k += chunk_) {
      const int64_t inner = std::min(chunk_, inner_ - k);
      rows_.Copy(images, first, count, k, k + inner, unfolded, inner);
      std::memset(unfolded + count * inner, 0,
                  kBytes * (blocks * micro_.block_rows - count) * inner);
      for (int64_t block = 0; block < blocks; ++block) {
        const Number* rows_at = unfolded + block * micro_.block_rows * inner;
        if (micro_.multiply_rows == nullptr) {
          micro_.pack_blocks({rows_at, {kType, inner, 1}, 0, micro_.block_rows, inner, inner},
                             left);
        }
        for (int64_t panel = 0; panel < panels_; ++panel) {
          const char* right =
              packed + panel * panel_bytes() + k * gemm::kPanelColumns * micro_.element;
          float* sums = c + (block * panels_ + panel) * block_floats;
          if (micro_.multiply_rows != nullptr) {
            micro_.multiply_rows(inner, rows_at, inner, right, sums, k > 0);
          } else {
            micro_.multiply(micro_.block_rows, inner, left, right, sums, k > 0);
          }
        }
        if (k + inner < inner_) continue;
        const int64_t row = block * micro_.block_rows;
        store(c + block * panels_ * block_floats, first + row,
              std::min(micro_.block_rows, count - row));
      }
    }
  }

  const gemm::Micro& micro_;
  const Rows rows_;
  const int64_t inner_, chunk_, panels_;
};

// A block of sums that belongs to some pixels, perhaps of several images, in parts of one image and
// panel: turn(c, count, channels, image, pixel, channel).
template <typename Turn>
void ForImagesAndPanels(float* c, int64_t block_rows, int64_t first, int64_t count, int64_t pixels,
                        int64_t channels, const Turn& turn) {
  for (int64_t row = 0; row < count;) {
    const int64_t image = (first + row) / pixels, pixel = (first + row) % pixels;
    const int64_t run = std::min(count - row, pixels - pixel);
    for (int64_t channel = 0; channel < channels; channel += gemm::kPanelColumns) {
      turn(c + channel * block_rows + row * gemm::kPanelColumns, run,
           std::min(gemm::kPanelColumns, channels - channel), image, pixel, channel);
    }
    row += run;
  }
}

// c [count, channels] to channels `pitch` numbers apart. `micro` turns floats (gemm/micro.h).
inline void StoreTurned(const gemm::Micro& micro, const float* c, int64_t count, int64_t channels,
                        int64_t pitch, const PixelTarget& y) {
  constexpr int64_t kColumns = gemm::kPanelColumns;
  if (y.wide != nullptr) micro.turn(count, channels, c, y.wide, pitch);
  if (y.narrow == nullptr) return;
  float turned[kColumns * kColumns];
  for (int64_t row = 0; row < count; row += kColumns) {
    const int64_t run = std::min(kColumns, count - row);
    micro.turn(run, channels, c + row * kColumns, turned, kColumns);
    simd::BestLoops().to_bf16_rows(channels, run, turned, kColumns, y.narrow + row, pitch);
  }
}

}  // namespace lepton::kernels::conv
