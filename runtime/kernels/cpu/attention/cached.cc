// Attention over cached keys and values. A slot keeps both as the right sides of products, so that
// a token's queries are their few left rows and nothing is packed but the token itself:
//   s = Q K^T,  p = e^(s - running maximum),  Y += p V.
// Every element is the same sum over the same tiles as in forward.cc, which takes texts from their
// beginning on, where there are many queries.
#include <algorithm>
#include <cstring>
#include <limits>

#include "runtime/kernels/cpu/attention/cut.h"
#include "runtime/kernels/cpu/attention/flash.h"
#include "runtime/kernels/cpu/attention/forward_head.h"
#include "runtime/kernels/cpu/attention/operand.h"
#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/kernels/cpu/simd/loops.h"

namespace lepton::kernels::attention {
namespace {

using gemm::kPanelColumns;
using gemm::Micro;
using graph::KernelContext;

// From so many new tokens on, a text's beginning is computed by blocks of 32 queries.
constexpr int64_t kManyQueries = 8;

// Where a panel has its numbers: what the micro-kernels' pack_panels writes (gemm/micro.h).
int64_t PanelPlace(DType dtype, int64_t inner, int64_t column) {
  if (dtype == DType::kF32) return inner * kPanelColumns + column;
  constexpr int64_t kTileColumns = 16;
  return inner / 32 * 32 * kPanelColumns + column / kTileColumns * 32 * kTileColumns +
         inner % 32 / 2 * 2 * kTileColumns + column % kTileColumns * 2 + inner % 2;
}

// The keys and values of one key head in a slot: panels of 32 keys [size, 32], then panels of 32
// columns of the values [capacity, 32].
class HeadCache {
 public:
  HeadCache(const KernelContext& context, const AttentionShape& s, int64_t slot, int64_t kv_head)
      : dtype_(context.input(0).type.dtype),
        element_(static_cast<int64_t>(DTypeSize(dtype_))),
        size_(s.size),
        padded_(PaddedTo(s.size, kPanelColumns)),
        inner_(PaddedTo(s.size, MicroOf(dtype_).step)),
        capacity_(context.attributes().Int("capacity")) {
    const TensorView& cache = context.input(5);
    const int64_t at = slot * cache.shape()[1] + kv_head * 2 * padded_ * capacity_;
    keys_ = cache.as<char>() + at * element_;
    values_ = keys_ + padded_ * capacity_ * element_;
  }

  // Panels of a multiple of 32 keys on, and of the values' columns from there on.
  char* keys(int64_t first) const { return keys_ + first * inner_ * element_; }
  char* values(int64_t panel, int64_t first) const {
    return values_ + (panel * capacity_ + first) * kPanelColumns * element_;
  }
  // Of keys' panels.
  int64_t inner() const { return inner_; }

  // Puts rows behind the first `before` ones.
  void Append(const Micro& micro, int64_t before, Rows keys, Rows values) const {
    if (before % kPanelColumns == 0) return Pack(micro, before, keys, values);
    const int64_t rest = kPanelColumns - before % kPanelColumns;
    const int64_t some = std::min(rest, keys.count);
    dtype_ == DType::kBF16 ? Put<uint16_t>(before, some, keys, values)
                           : Put<uint32_t>(before, some, keys, values);
    if (some == keys.count) return;
    const auto skip = [&](Rows& rows) {
      rows.data = static_cast<const char*>(rows.data) + some * rows.pitch * element_;
      rows.count -= some;
    };
    skip(keys);
    skip(values);
    Pack(micro, before + some, keys, values);
  }

 private:
  // From a whole panel on; what is missing of the last becomes zeros.
  void Pack(const Micro& micro, int64_t before, const Rows& k, const Rows& v) const {
    micro.pack_panels({k.data, {k.dtype, 1, k.pitch}, 0, k.count, size_, inner_}, keys(before));
    const int64_t padded = PaddedTo(v.count, kPanelColumns);
    for (int64_t column = 0; column < size_; column += kPanelColumns) {
      micro.pack_panels({v.data,
                         {v.dtype, v.pitch, 1},
                         column,
                         std::min(kPanelColumns, size_ - column),
                         v.count,
                         padded},
                        values(column / kPanelColumns, before));
    }
  }

  // Within a panel.
  template <typename T>
  void Put(int64_t before, int64_t count, const Rows& k, const Rows& v) const {
    T* panel = reinterpret_cast<T*>(keys(before / kPanelColumns * kPanelColumns));
    for (int64_t i = 0; i < count; ++i) {
      const int64_t key = before % kPanelColumns + i;
      const T* from_k = static_cast<const T*>(k.data) + i * k.pitch;
      const T* from_v = static_cast<const T*>(v.data) + i * v.pitch;
      for (int64_t c = 0; c < size_; ++c) panel[PanelPlace(dtype_, c, key)] = from_k[c];
      for (int64_t c = 0; c < size_; ++c) {
        T* to =
            reinterpret_cast<T*>(values(c / kPanelColumns, before / kPanelColumns * kPanelColumns));
        to[PanelPlace(dtype_, key, c % kPanelColumns)] = from_v[c];
      }
    }
  }

  const DType dtype_;
  const int64_t element_, size_, padded_, inner_, capacity_;
  char *keys_, *values_;
};

// The queries of one text that share a key head: row r is query r / group of head r % group.
class CachedQueries {
 public:
  CachedQueries(const KernelContext& context, const AttentionShape& s, const HeadCache& cache,
                int64_t text, int64_t kv_head)
      : context_(context),
        s_(s),
        cache_(cache),
        dtype_(context.input(0).type.dtype),
        element_(static_cast<int64_t>(DTypeSize(dtype_))),
        micro_(MicroOf(dtype_)),
        text_(text),
        kv_head_(kv_head),
        block_(micro_.block_rows * kPanelColumns),
        unit_(KeyUnit(micro_)),
        tile_(TileKeys(micro_)),
        value_panels_((s.size + kPanelColumns - 1) / kPanelColumns) {}

  void Run() {
    const TileScope scope(micro_);
    const int64_t rows = s_.queries * s_.group();
    for (int64_t row = 0; row < rows; row += micro_.block_rows) {
      Block(row, std::min(micro_.block_rows, rows - row));
    }
  }

 private:
  struct Work {
    Storage rows, scores, probabilities, sums;
    Packed queries, left;
  };
  static Work& work() {
    thread_local Work work;
    return work;
  }
  static constexpr int64_t kMostRows = 32;  // of a block

  int64_t QueryOf(int64_t row) const { return row / s_.group(); }
  int64_t At(int64_t row) const {
    return s_.QueryOffset(text_, kv_head_ * s_.group() + row % s_.group(), QueryOf(row));
  }

  void Block(int64_t first, int64_t rows) {
    char* queries = work().rows.Get<char>(rows * s_.size * element_);
    for (int64_t r = 0; r < rows; ++r) {
      std::memcpy(queries + r * s_.size * element_,
                  context_.input(0).as<char>() + At(first + r) * element_, s_.size * element_);
    }
    work().queries.Left(micro_, {queries, dtype_, s_.size, rows, s_.size});
    float* sums = work().sums.Get<float>(value_panels_ * block_);
    std::fill_n(sums, value_panels_ * block_, 0.0f);
    std::fill_n(tops_, rows, -std::numeric_limits<float>::infinity());
    std::fill_n(totals_, rows, 0.0f);
    const int64_t end = s_.EndKey(QueryOf(first + rows - 1));
    for (int64_t key = s_.FirstKey(QueryOf(first)) / unit_ * unit_, next = 0; key < end;
         key = next) {
      next = std::min(end, NextTile(key, tile_));
      Tile(first, rows, key, next, sums);
    }
    Store(first, rows, sums);
  }

  // The keys [key, end), from a multiple of unit_ on.
  void Tile(int64_t first, int64_t rows, int64_t key, int64_t end, float* sums) {
    const int64_t keys = end - key;
    float* scores = work().scores.Get<float>(kTile / kPanelColumns * block_);
    for (int64_t panel = 0; panel < keys; panel += kPanelColumns) {
      micro_.multiply(rows, cache_.inner(), work().queries.unit(0), cache_.keys(key + panel),
                      scores + panel / kPanelColumns * block_, false);
    }
    const float* probabilities = Probabilities(first, rows, key, keys, scores, sums);
    const int64_t inner = PaddedTo(keys, micro_.step);
    work().left.Left(micro_, {probabilities, DType::kF32, kTile, rows, inner});
    for (int64_t panel = 0; panel < value_panels_; ++panel) {
      micro_.multiply(rows, inner, work().left.unit(0), cache_.values(panel, key),
                      sums + panel * block_, true);
    }
  }

  // [rows, kTile]; 0 where a query does not see a key. Earlier sums shrink where maxima grew.
  const float* Probabilities(int64_t first, int64_t rows, int64_t key, int64_t keys,
                             const float* scores, float* sums) {
    const simd::Loops& loops = simd::BestLoops();
    constexpr float kNone = -std::numeric_limits<float>::infinity();
    float* probabilities = work().probabilities.Get<float>(kTile * rows);
    float below[kMostRows], shrinks[kMostRows], factors[kMostRows];
    const auto row_of = [&](int64_t r) {
      const int64_t query = QueryOf(first + r);
      simd::ScoreRow row{0, 0, static_cast<float>(s_.scale), block_};
      row.begin = std::clamp<int64_t>(s_.FirstKey(query) - key, 0, keys);
      row.end = std::clamp<int64_t>(s_.EndKey(query) - key, row.begin, keys);
      return row;
    };
    bool shrink = false;
    for (int64_t r = 0; r < rows; ++r) {
      const float before = tops_[r];
      tops_[r] = loops.score_row_top(row_of(r), scores + r * kPanelColumns, before);
      below[r] = tops_[r] == kNone ? 0.0f : tops_[r];  // nothing seen: nothing to be below of
      shrinks[r] = before == kNone ? 0.0f : before - below[r];
      shrink = shrink || shrinks[r] != 0;
    }
    if (shrink) {
      loops.exp_minus(rows, 0.0f, shrinks, factors);
      for (int64_t panel = 0; panel < value_panels_; ++panel) {
        loops.scale_rows(rows, kPanelColumns, factors, sums + panel * block_, kPanelColumns);
      }
      for (int64_t r = 0; r < rows; ++r) totals_[r] *= factors[r];
    }
    for (int64_t r = 0; r < rows; ++r) {
      totals_[r] = loops.score_row_exp(row_of(r), keys, below[r], scores + r * kPanelColumns,
                                       probabilities + r * kTile, totals_[r]);
    }
    return probabilities;
  }

  void Store(int64_t first, int64_t rows, float* sums) const {
    const simd::Loops& loops = simd::BestLoops();
    float factors[kMostRows];
    for (int64_t r = 0; r < rows; ++r) factors[r] = 1 / totals_[r];
    const TensorView& y = context_.output(0);
    for (int64_t panel = 0; panel < value_panels_; ++panel) {
      float* block = sums + panel * block_;
      const int64_t columns = std::min(kPanelColumns, s_.size - panel * kPanelColumns);
      loops.scale_rows(rows, columns, factors, block, kPanelColumns);
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t at = At(first + r) + panel * kPanelColumns;
        if (dtype_ == DType::kBF16) {
          loops.to_bf16(columns, block + r * kPanelColumns, y.as<uint16_t>() + at);
        } else {
          std::memcpy(y.as<float>() + at, block + r * kPanelColumns, columns * sizeof(float));
        }
      }
    }
  }

  const KernelContext& context_;
  const AttentionShape& s_;
  const HeadCache& cache_;
  const DType dtype_;
  const int64_t element_;
  const Micro& micro_;
  const int64_t text_, kv_head_;
  const int64_t block_;        // floats of what a product of a panel may write, whatever its rows
  const int64_t unit_, tile_;  // keys: as cut.h says
  const int64_t value_panels_;
  float tops_[kMostRows], totals_[kMostRows];  // by row of the block
};

void ForwardText(const KernelContext& context, const AttentionShape& shape, int64_t text,
                 int64_t kv_head) {
  const int64_t slot = context.input(3).as<int32_t>()[text];
  const int64_t before = context.input(4).as<int32_t>()[text];
  const TensorView& y = context.output(0);
  const auto element = static_cast<int64_t>(DTypeSize(y.type.dtype));
  const int64_t first_head = kv_head * shape.group();
  if (slot < 0) {
    for (int64_t query = 0; query < shape.queries; ++query) {
      std::memset(y.as<char>() + shape.OutputOffset(text, first_head, query) * element, 0,
                  shape.group() * shape.size * element);
    }
    return;
  }
  const HeadCache cache(context, shape, slot, kv_head);
  const int64_t k_at = shape.KeyOffset(text, kv_head, 0);
  const auto rows = [&](int input) {
    return HeadRows(context.input(input), k_at, shape.kv_pitch, shape.queries, shape.size);
  };
  cache.Append(MicroOf(y.type.dtype), before, rows(1), rows(2));
  if (before == 0 && shape.queries >= kManyQueries) {
    for (int64_t head = first_head; head < first_head + shape.group(); ++head) {
      ForwardOneHead(context, kCachedPlaces, shape, text, head);
    }
    return;
  }
  AttentionShape whole = shape;
  whole.keys = before + shape.queries;
  CachedQueries(context, whole, cache, text, kv_head).Run();
}

}  // namespace

void CachedForward(const KernelContext& context) {
  AttentionShape shape(context, kCachedPlaces);
  shape.causal = true;
  ComputeLoop(shape.batch * shape.kv_heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      ForwardText(context, shape, i / shape.kv_heads, i % shape.kv_heads);
    }
  });
}

}  // namespace lepton::kernels::attention
