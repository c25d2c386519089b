#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "runtime/kernels/cpu/attention/attention_shape.h"
#include "runtime/kernels/cpu/attention/cut.h"
#include "runtime/kernels/cpu/attention/flash.h"
#include "runtime/kernels/cpu/attention/forward_head.h"
#include "runtime/kernels/cpu/attention/operand.h"
#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/kernels/cpu/gemm/ahead.h"
#include "runtime/kernels/cpu/simd/loops.h"

namespace lepton::kernels::attention {
namespace {

using gemm::Ahead;
using gemm::kPanelColumns;
using gemm::Micro;
using graph::KernelContext;

// Rows ahead of need, after a block: few, or they would wait for each other.
constexpr int64_t kFetchedForward = 18;

// One head's forward pass.
class ForwardHead {
 public:
  ForwardHead(const KernelContext& context, const AttentionPlaces& places, const AttentionShape& s,
              int64_t image, int64_t head)
      : context_(context),
        places_(places),
        s_(s),
        dtype_(context.input(0).type.dtype),
        micro_(MicroOf(dtype_)),
        image_(image),
        head_(head),
        padded_size_(PaddedTo(s.size, micro_.block_rows)),
        unit_(KeyUnit(micro_)),
        tile_(TileKeys(micro_)),
        bias_(context.inputs() > places.bias
                  ? context.input(places.bias).as<float>() + image * s.keys
                  : nullptr) {}

  // `more`: the thread takes the next head afterwards.
  void Run(bool more) {
    const TileScope scope(micro_);
    Expect(more);
    const int64_t kv_head = head_ / s_.group();
    const int64_t k_at = s_.KeyOffset(image_, kv_head, 0);
    const int64_t v_at = s_.ValueOffset(image_, kv_head, 0);
    work().keys.Set(micro_,
                    HeadRows(context_.input(places_.k), k_at, s_.kv_pitch, s_.keys, s_.size));
    work().values.LeftTurned(
        micro_, HeadRows(context_.input(places_.v), v_at, s_.kv_pitch, s_.keys, s_.size));
    for (int64_t query = 0; query < s_.queries; query += kPanelColumns) Block(query);
  }

 private:
  struct Work {
    Ahead ahead;
    LeftRows keys;
    Packed values, queries;
    Storage scores, pairs, sums, turned;
  };
  static Work& work() {
    thread_local Work work;
    return work;
  }

  // This head's results and the next one's inputs.
  void Expect(bool more) const {
    Ahead& ahead = work().ahead;
    ahead.Clear();
    const auto add = [&](const TensorView& view, int64_t offset, int64_t pitch, int64_t rows) {
      const auto element = static_cast<int64_t>(DTypeSize(dtype_));
      ahead.Add(view.as<char>() + offset * element, rows, s_.size * element, pitch * element);
    };
    add(context_.output(0), s_.OutputOffset(image_, head_, 0), s_.y_pitch(), s_.queries);
    if (!more) return;
    const int64_t next = image_ * s_.heads + head_ + 1;
    const int64_t image = next / s_.heads, head = next % s_.heads;
    add(context_.input(places_.q), s_.QueryOffset(image, head, 0), s_.q_pitch, s_.queries);
    if (head % s_.group() != 0) return;
    const int64_t kv_head = head / s_.group();
    add(context_.input(places_.v), s_.ValueOffset(image, kv_head, 0), s_.kv_pitch, s_.keys);
    add(context_.input(places_.k), s_.KeyOffset(image, kv_head, 0), s_.kv_pitch, s_.keys);
  }

  // 32 queries from `first` on; what is missing of them is computed on zeros and not stored.
  void Block(int64_t first) {
    const int64_t count = std::min(kPanelColumns, s_.queries - first);
    const int64_t at = s_.QueryOffset(image_, head_, first);
    work().queries.RightTurned(micro_,
                               HeadRows(context_.input(places_.q), at, s_.q_pitch, count, s_.size));
    float* sums = work().sums.Get<float>(padded_size_ * kPanelColumns);
    std::fill_n(sums, padded_size_ * kPanelColumns, 0.0f);
    std::fill_n(tops_, kPanelColumns, -std::numeric_limits<float>::infinity());
    std::fill_n(totals_, kPanelColumns, 0.0f);
    const int64_t end = s_.EndKey(first + count - 1);
    for (int64_t key = s_.FirstKey(first) / unit_ * unit_, next = 0; key < end; key = next) {
      next = std::min(end, NextTile(key, tile_));
      Tile(first, count, key, next, sums);
    }
    Store(first, count, sums);
  }

  // The keys [key, end), from a multiple of unit_ on.
  void Tile(int64_t first, int64_t count, int64_t key, int64_t end, float* sums) {
    const int64_t keys = end - key;
    float* scores = work().scores.Get<float>(kTile * kPanelColumns);
    for (int64_t row = 0; row < keys; row += micro_.block_rows) {
      work().keys.Multiply(micro_, key + row, std::min(micro_.block_rows, keys - row),
                           work().queries.inner(), work().queries.unit(0),
                           scores + row * kPanelColumns);
      work().ahead.Fetch(kFetchedForward);
    }
    FindMasks(first, count, key, keys);
    const char* probabilities = Probabilities(key, keys, scores, sums);
    work().ahead.Fetch(kFetchedForward);
    const int64_t inner = dtype_ == DType::kBF16 ? PaddedTo(keys, kPanelColumns) : keys;
    for (int64_t row = 0; row < s_.size; row += micro_.block_rows) {
      micro_.multiply(std::min(micro_.block_rows, s_.size - row), inner,
                      work().values.block_from(micro_, row / micro_.block_rows, key), probabilities,
                      sums + row * kPanelColumns, true);
      work().ahead.Fetch(kFetchedForward);
    }
  }

  // By query, the keys of the tile that it sees, and the part that all see, by steps of 32.
  void FindMasks(int64_t first, int64_t count, int64_t key, int64_t keys) {
    int64_t from = 0, to = keys;
    for (int64_t i = 0; i < kPanelColumns; ++i) {
      begin_[i] = 0;
      end_[i] = static_cast<int32_t>(keys);
      if (i >= count) continue;
      begin_[i] = static_cast<int32_t>(std::clamp<int64_t>(s_.FirstKey(first + i) - key, 0, keys));
      end_[i] =
          static_cast<int32_t>(std::clamp<int64_t>(s_.EndKey(first + i) - key, begin_[i], keys));
      from = std::max<int64_t>(from, begin_[i]);
      to = std::min<int64_t>(to, end_[i]);
    }
    from = std::min(PaddedTo(from, kPanelColumns), keys);
    if (to < keys) to = to / kPanelColumns * kPanelColumns;
    all_from_ = from;
    all_to_ = std::max(from, to);
  }

  // Calls body(block, first row) for the parts of the tile with and without masks, in order.
  template <typename Body>
  void ForParts(int64_t key, int64_t keys, const Body& body) const {
    const int64_t edges[] = {0, all_from_, all_to_, keys};
    for (int part = 0; part < 3; ++part) {
      const int64_t row = edges[part], rows = edges[part + 1] - row;
      if (rows == 0) continue;
      const bool masked = part != 1;
      body(simd::ScoreBlock{rows, static_cast<float>(s_.scale),
                            bias_ == nullptr ? nullptr : bias_ + key + row, row,
                            masked ? begin_ : nullptr, masked ? end_ : nullptr},
           row);
    }
  }

  // Turns scores into probabilities below the new maxima; earlier sums shrink where these grew.
  // Returns them as the right side of a product.
  const char* Probabilities(int64_t key, int64_t keys, float* scores, float* sums) {
    const simd::Loops& loops = simd::BestLoops();
    constexpr float kNone = -std::numeric_limits<float>::infinity();
    float before[kPanelColumns], below[kPanelColumns], shrinks[kPanelColumns];
    std::copy_n(tops_, kPanelColumns, before);
    ForParts(key, keys, [&](const simd::ScoreBlock& block, int64_t row) {
      loops.score_tops(block, scores + row * kPanelColumns, tops_);
    });
    bool shrink = false;
    for (int64_t i = 0; i < kPanelColumns; ++i) {
      below[i] = tops_[i] == kNone ? 0.0f : tops_[i];  // nothing seen: nothing to be below of
      shrinks[i] = before[i] == kNone ? 0.0f : before[i] - below[i];
      shrink = shrink || shrinks[i] != 0;
    }
    if (shrink) {
      loops.exp_minus(kPanelColumns, 0.0f, shrinks, before);
      loops.scale_columns(padded_size_, before, sums);
      loops.scale_columns(1, before, totals_);
    }
    const bool bf16 = dtype_ == DType::kBF16;
    const int64_t padded = PaddedTo(keys, kPanelColumns);
    uint16_t* pairs = bf16 ? work().pairs.Get<uint16_t>(kTile * kPanelColumns) : nullptr;
    if (bf16 && padded > keys) {
      std::memset(pairs + (padded - kPanelColumns) * kPanelColumns, 0,
                  kPanelColumns * kPanelColumns * sizeof(uint16_t));
    }
    ForParts(key, keys, [&](const simd::ScoreBlock& block, int64_t row) {
      loops.score_exp(block, below, scores + row * kPanelColumns, totals_,
                      bf16 ? pairs + row * kPanelColumns : nullptr);
    });
    return bf16 ? reinterpret_cast<const char*>(pairs) : reinterpret_cast<const char*>(scores);
  }

  void Store(int64_t first, int64_t count, const float* sums) const {
    float factors[kPanelColumns];
    for (int64_t i = 0; i < count; ++i) factors[i] = 1 / totals_[i];
    if (context_.outputs() > 1) {
      float* log_sums =
          context_.output(1).as<float>() + (image_ * s_.heads + head_) * s_.queries + first;
      for (int64_t i = 0; i < count; ++i) log_sums[i] = tops_[i] + std::log(totals_[i]);
    }
    StoreTurned(micro_, sums, count, s_.size, factors, context_.output(0),
                s_.OutputOffset(image_, head_, first), s_.y_pitch(),
                work().turned.Get<float>(kPanelColumns * s_.size));
  }

  const KernelContext& context_;
  const AttentionPlaces& places_;
  const AttentionShape& s_;
  const DType dtype_;
  const Micro& micro_;
  const int64_t image_, head_;
  const int64_t padded_size_;  // of a head, to whole blocks
  const int64_t unit_, tile_;  // keys: as cut.h says
  const float* const bias_;
  // By query of the block.
  float tops_[kPanelColumns], totals_[kPanelColumns];
  int32_t begin_[kPanelColumns], end_[kPanelColumns];
  int64_t all_from_ = 0, all_to_ = 0;
};

void ForwardHeads(const KernelContext& context, const AttentionPlaces& places) {
  const AttentionShape s(context, places);
  ComputeLoop(s.batch * s.heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      ForwardHead(context, places, s, i / s.heads, i % s.heads).Run(i + 1 < end);
    }
  });
}

}  // namespace

void ForwardOneHead(const KernelContext& context, const AttentionPlaces& places,
                    const AttentionShape& shape, int64_t image, int64_t head) {
  ForwardHead(context, places, shape, image, head).Run(false);
}

void Forward(const KernelContext& context) {
  ForwardHeads(context, kAttentionPlaces);
}
void PackedForward(const KernelContext& context) {
  ForwardHeads(context, kPackedPlaces);
}

}  // namespace lepton::kernels::attention
