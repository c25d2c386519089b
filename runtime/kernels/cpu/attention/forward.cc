#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "runtime/kernels/cpu/attention/attention_shape.h"
#include "runtime/kernels/cpu/attention/flash.h"
#include "runtime/kernels/cpu/attention/operand.h"
#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/kernels/cpu/simd/loops.h"

namespace lepton::kernels::attention {
namespace {

using gemm::kPanelColumns;
using gemm::Micro;
using graph::KernelContext;

const Micro& MicroOf(DType dtype) {
  return dtype == DType::kBF16 ? gemm::Bf16Micro() : gemm::F32Micro();
}

Rows HeadRows(const TensorView& view, int64_t offset, int64_t pitch, int64_t count, int64_t size) {
  return {view.as<char>() + offset * static_cast<int64_t>(DTypeSize(view.type.dtype)),
          view.type.dtype, pitch, count, size};
}

// One head's forward pass.
class ForwardHead {
 public:
  ForwardHead(const KernelContext& context, const AttentionPlaces& places, const AttentionShape& s,
              int64_t image, int64_t head)
      : context_(context),
        places_(places),
        s_(s),
        micro_(MicroOf(context.input(0).type.dtype)),
        image_(image),
        head_(head),
        bias_(context.inputs() > places.bias
                  ? context.input(places.bias).as<float>() + image * s.keys
                  : nullptr) {}

  void Run() {
    const TileScope scope(micro_);
    const int64_t kv_head = head_ / s_.group();
    const int64_t k_at = s_.KeyOffset(image_, kv_head, 0);
    const int64_t v_at = s_.ValueOffset(image_, kv_head, 0);
    const int64_t q_at = s_.QueryOffset(image_, head_, 0);
    const auto rows = [&](int input, int64_t at, int64_t pitch, int64_t count) {
      return HeadRows(context_.input(input), at, pitch, count, s_.size);
    };
    work().keys.RightTurned(micro_, rows(places_.k, k_at, s_.kv_pitch, s_.keys));
    work().values.Right(micro_, rows(places_.v, v_at, s_.kv_pitch, s_.keys));
    work().queries.Left(micro_, rows(places_.q, q_at, s_.q_pitch, s_.queries));
    for (int64_t query = 0; query < s_.queries; query += micro_.block_rows) Block(query);
  }

 private:
  struct Work {
    Packed queries, keys, values;
    Storage scores, probabilities, sums;
  };
  static Work& work() {
    thread_local Work work;
    return work;
  }
  int64_t block_floats() const { return micro_.block_rows * kPanelColumns; }

  // micro_.block_rows queries from `first` on.
  void Block(int64_t first) {
    const int64_t rows = std::min(micro_.block_rows, s_.queries - first);
    const int64_t panels = (s_.size + kPanelColumns - 1) / kPanelColumns;
    float* sums = work().sums.Get<float>(panels * block_floats());
    std::fill_n(sums, panels * block_floats(), 0.0f);
    std::fill_n(tops_, rows, -std::numeric_limits<float>::infinity());
    std::fill_n(totals_, rows, 0.0f);
    const int64_t end = s_.EndKey(first + rows - 1);
    for (int64_t key = s_.FirstKey(first) / kPanelColumns * kPanelColumns; key < end;
         key += kTile) {
      Tile(first, rows, key, std::min(end, key + kTile), panels, sums);
    }
    Store(first, rows, panels, sums);
  }

  // The keys [key, end), from a multiple of 32 on.
  void Tile(int64_t first, int64_t rows, int64_t key, int64_t end, int64_t panels, float* sums) {
    const int64_t columns = PaddedTo(end - key, kPanelColumns);
    float* scores = work().scores.Get<float>(kTile * micro_.block_rows);
    const char* queries = work().queries.unit(first / micro_.block_rows);
    for (int64_t column = 0; column < columns; column += kPanelColumns) {
      micro_.multiply(rows, work().keys.inner(), queries,
                      work().keys.unit((key + column) / kPanelColumns),
                      scores + column * micro_.block_rows, false);
    }
    bool rescale = false;
    for (int64_t row = 0; row < rows; ++row) {
      rescale = Row(first, row, key, end, columns, scores + row * kPanelColumns) || rescale;
    }
    if (rescale) {
      for (int64_t panel = 0; panel < panels; ++panel) {
        simd::BestLoops().scale_rows(rows, kPanelColumns, shrinks_, sums + panel * block_floats(),
                                     kPanelColumns);
      }
    }
    // Probabilities as a left side, 32 keys of it at a time.
    const int64_t unit = kPanelColumns * micro_.block_rows;
    char* left = work().probabilities.Get<char>(kTile * micro_.block_rows * micro_.element);
    for (int64_t column = 0; column < columns; column += kPanelColumns) {
      micro_.pack_blocks({scores + column * micro_.block_rows,
                          {DType::kF32, kPanelColumns, 1},
                          0,
                          rows,
                          kPanelColumns,
                          kPanelColumns},
                         left + column / kPanelColumns * unit * micro_.element);
    }
    for (int64_t panel = 0; panel < panels; ++panel) {
      micro_.multiply(rows, columns, left, work().values.from(micro_, panel, key),
                      sums + panel * block_floats(), true);
    }
  }

  // Turns a row of scores into probabilities below its new maximum. Whether earlier sums shrink.
  bool Row(int64_t first, int64_t row, int64_t key, int64_t end, int64_t columns, float* scores) {
    const simd::Loops& loops = simd::BestLoops();
    const int64_t from = std::clamp<int64_t>(s_.FirstKey(first + row) - key, 0, end - key);
    const int64_t to = std::clamp<int64_t>(s_.EndKey(first + row) - key, from, end - key);
    const float scale = static_cast<float>(s_.scale);
    const float* bias = bias_ == nullptr ? nullptr : bias_ + key;
    const float top =
        std::max(tops_[row], loops.score_row(from, to, block_floats(), scale, bias, scores));
    // Nothing seen yet: there is nothing to be below of.
    const float below = top == -std::numeric_limits<float>::infinity() ? 0.0f : top;
    const float shrink = totals_[row] > 0 ? std::exp(tops_[row] - below) : 1.0f;
    const float sum = loops.exp_row(columns, from, to, block_floats(), below, scores);
    totals_[row] = totals_[row] * shrink + sum;
    tops_[row] = top;
    shrinks_[row] = shrink;
    return shrink != 1.0f;
  }

  void Store(int64_t first, int64_t rows, int64_t panels, float* sums) const {
    const simd::Loops& loops = simd::BestLoops();
    const TensorView& y = context_.output(0);
    float* log_sums =
        context_.output(1).as<float>() + (image_ * s_.heads + head_) * s_.queries + first;
    float factors[kPanelColumns];
    for (int64_t row = 0; row < rows; ++row) {
      factors[row] = 1 / totals_[row];
      log_sums[row] = tops_[row] + std::log(totals_[row]);
    }
    const int64_t at = s_.OutputOffset(image_, head_, first);
    for (int64_t panel = 0; panel < panels; ++panel) {
      const int64_t column = panel * kPanelColumns;
      const int64_t columns = std::min(kPanelColumns, s_.size - column);
      float* block = sums + panel * block_floats();
      loops.scale_rows(rows, kPanelColumns, factors, block, kPanelColumns);
      if (y.type.dtype == DType::kBF16) {
        loops.to_bf16_rows(rows, columns, block, kPanelColumns, y.as<uint16_t>() + at + column,
                           s_.y_pitch());
      } else {
        loops.copy_rows(rows, columns, block, kPanelColumns, y.as<float>() + at + column,
                        s_.y_pitch());
      }
    }
  }

  const KernelContext& context_;
  const AttentionPlaces& places_;
  const AttentionShape& s_;
  const Micro& micro_;
  const int64_t image_, head_;
  const float* const bias_;
  // By row of the block.
  float tops_[kPanelColumns], totals_[kPanelColumns], shrinks_[kPanelColumns];
};

void ForwardHeads(const KernelContext& context, const AttentionPlaces& places) {
  const AttentionShape s(context, places);
  ComputeLoop(s.batch * s.heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      ForwardHead(context, places, s, i / s.heads, i % s.heads).Run();
    }
  });
}

}  // namespace

void Forward(const KernelContext& context) {
  ForwardHeads(context, kAttentionPlaces);
}
void PackedForward(const KernelContext& context) {
  ForwardHeads(context, kPackedPlaces);
}

}  // namespace lepton::kernels::attention
