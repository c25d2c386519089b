#include <algorithm>
#include <cstring>

#include "runtime/kernels/cpu/attention/attention_shape.h"
#include "runtime/kernels/cpu/attention/flash.h"
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
constexpr int64_t kFetchedBackward = 14;

// The queries of one key head, tile by tile, against all its keys.
class BackwardHead {
 public:
  BackwardHead(const KernelContext& context, const AttentionPlaces& places, const AttentionShape& s,
               int64_t image, int64_t kv_head)
      : context_(context),
        places_(places),
        s_(s),
        dtype_(context.input(places.q).type.dtype),
        micro_(dtype_ == DType::kBF16 ? gemm::Bf16Micro() : gemm::F32Micro()),
        image_(image),
        kv_head_(kv_head),
        panels_((s.size + kPanelColumns - 1) / kPanelColumns),
        wide_(panels_ * kPanelColumns),
        padded_size_(PaddedTo(s.size, micro_.block_rows)),
        bias_(context.inputs() > places.bias
                  ? context.input(places.bias).as<float>() + image * s.keys
                  : nullptr) {}

  // `more`: the thread takes the next key head afterwards.
  void Run(bool more) {
    const TileScope scope(micro_);
    Expect(more);
    dk_ = Zeros(work().dk, PaddedTo(s_.keys, micro_.block_rows) * wide_);
    dv_ = Zeros(work().dv, PaddedTo(s_.keys, micro_.block_rows) * wide_);
    for (int64_t member = 0; member < s_.group(); ++member) {
      const int64_t head = kv_head_ * s_.group() + member;
      for (int64_t query = 0; query < s_.queries; query += kTile) Queries(head, query);
    }
    for (int64_t key = 0; key < s_.keys; key += micro_.block_rows) {
      const int64_t rows = std::min(micro_.block_rows, s_.keys - key);
      Store(dk_ + key * wide_, rows, context_.output(places_.dk),
            s_.KeyOffset(image_, kv_head_, key), s_.kv_pitch);
      Store(dv_ + key * wide_, rows, context_.output(places_.dv),
            s_.ValueOffset(image_, kv_head_, key), s_.kv_pitch);
    }
  }

 private:
  struct Work {
    Ahead ahead;
    Packed q_turned, q, dy_turned, dy, k_turned;
    LeftRows k, v;
    Storage dk, dv, dq, scores, slopes, p_left, ds_left, ds, dots, log_sums, turned;
  };
  static Work& work() {
    thread_local Work work;
    return work;
  }
  int64_t block_floats() const { return micro_.block_rows * kPanelColumns; }
  static float* Zeros(Storage& storage, int64_t count) {
    float* values = storage.Get<float>(count);
    std::fill_n(values, count, 0.0f);
    return values;
  }
  Rows HeadRows(int input, int64_t offset, int64_t pitch, int64_t count) const {
    const TensorView& view = context_.input(input);
    return {view.as<char>() + offset * static_cast<int64_t>(DTypeSize(dtype_)), dtype_, pitch,
            count, s_.size};
  }

  // The gradients of this key head, and the inputs of the next.
  void Expect(bool more) const {
    Ahead& ahead = work().ahead;
    ahead.Clear();
    const auto add = [&](const TensorView& view, int64_t offset, int64_t pitch, int64_t rows,
                         int64_t heads) {
      const auto element = static_cast<int64_t>(DTypeSize(dtype_));
      ahead.Add(view.as<char>() + offset * element, rows, heads * s_.size * element,
                pitch * element);
    };
    const int64_t group = s_.group();
    const auto q = [&](const TensorView& view, int64_t image, int64_t kv_head) {
      add(view, s_.QueryOffset(image, kv_head * group, 0), s_.q_pitch, s_.queries, group);
    };
    q(context_.output(places_.dq), image_, kv_head_);
    add(context_.output(places_.dk), s_.KeyOffset(image_, kv_head_, 0), s_.kv_pitch, s_.keys, 1);
    add(context_.output(places_.dv), s_.ValueOffset(image_, kv_head_, 0), s_.kv_pitch, s_.keys, 1);
    if (!more) return;
    const int64_t next = image_ * s_.kv_heads + kv_head_ + 1;
    const int64_t image = next / s_.kv_heads, kv_head = next % s_.kv_heads;
    q(context_.input(places_.q), image, kv_head);
    for (const int input : {places_.dy, places_.y}) {
      add(context_.input(input), s_.OutputOffset(image, kv_head * group, 0), s_.y_pitch(),
          s_.queries, group);
    }
    add(context_.input(places_.k), s_.KeyOffset(image, kv_head, 0), s_.kv_pitch, s_.keys, 1);
    add(context_.input(places_.v), s_.ValueOffset(image, kv_head, 0), s_.kv_pitch, s_.keys, 1);
  }

  // Queries [first, first + kTile) of one head.
  void Queries(int64_t head, int64_t first) {
    const int64_t count = std::min(kTile, s_.queries - first);
    const int64_t at = s_.QueryOffset(image_, head, first);
    const int64_t y_at = s_.OutputOffset(image_, head, first);
    work().q_turned.RightTurned(micro_, HeadRows(places_.q, at, s_.q_pitch, count));
    work().q.Right(micro_, HeadRows(places_.q, at, s_.q_pitch, count));
    work().dy_turned.RightTurned(micro_, HeadRows(places_.dy, y_at, s_.y_pitch(), count));
    work().dy.Right(micro_, HeadRows(places_.dy, y_at, s_.y_pitch(), count));
    PrepareStatistics(head, first, count, y_at);
    float* dq = Zeros(work().dq, kTile * padded_size_);
    const int64_t end = s_.EndKey(first + count - 1);
    // Whole blocks of keys.
    const int64_t step = kTile / micro_.block_rows * micro_.block_rows;
    for (int64_t key = s_.FirstKey(first) / step * step; key < end; key += step) {
      Keys(first, count, key, std::min(end, key + step), dq);
    }
    for (int64_t row = 0; row < count; row += kPanelColumns) {
      StoreTurned(micro_, dq + row * padded_size_, std::min(kPanelColumns, count - row), s_.size,
                  nullptr, context_.output(places_.dq), at + row * s_.q_pitch, s_.q_pitch,
                  work().turned.Get<float>(kPanelColumns * s_.size));
    }
  }

  // By query: log_sum, and dy . y. What is behind the last query does not count.
  void PrepareStatistics(int64_t head, int64_t first, int64_t count, int64_t at) {
    float* dots = Zeros(work().dots, kTile);
    float* log_sums = Zeros(work().log_sums, kTile);
    std::copy_n(context_.input(places_.log_sum).as<float>() +
                    (image_ * s_.heads + head) * s_.queries + first,
                count, log_sums);
    const TensorView& dy = context_.input(places_.dy);
    const TensorView& y = context_.input(places_.y);
    if (dtype_ == DType::kBF16) {
      simd::BestLoops().dot_rows_bf16(count, s_.size, dy.as<uint16_t>() + at, y.as<uint16_t>() + at,
                                      s_.y_pitch(), dots);
    } else {
      simd::BestLoops().dot_rows(count, s_.size, dy.as<float>() + at, y.as<float>() + at,
                                 s_.y_pitch(), dots);
    }
  }

  // The queries of the tile against keys [key, end).
  void Keys(int64_t first, int64_t count, int64_t key, int64_t end, float* dq) {
    const int64_t keys = end - key;
    const int64_t k_at = s_.KeyOffset(image_, kv_head_, key);
    const int64_t v_at = s_.ValueOffset(image_, kv_head_, key);
    const Rows k = HeadRows(places_.k, k_at, s_.kv_pitch, keys);
    work().k.Set(micro_, k);
    work().v.Set(micro_, HeadRows(places_.v, v_at, s_.kv_pitch, keys));
    work().k_turned.LeftTurned(micro_, k);
    // The slopes of all these keys as right sides, a panel per 32 queries; what is not seen, and
    // rows beyond the keys, are zero. Where blocks are of 32 keys, whole, and seen from some query
    // on, those that QueryGradient reads are all written.
    const int64_t padded_keys = PaddedTo(keys, kPanelColumns);
    const int64_t ds_bytes = padded_keys * kTile * micro_.element;
    char* const ds = work().ds.Get<char>(ds_bytes);
    const bool all_written =
        micro_.block_rows == kPanelColumns && keys == padded_keys && s_.window == 0;
    if (!all_written) std::memset(ds, 0, ds_bytes);
    for (int64_t row = 0; row < keys; row += micro_.block_rows) {
      KeyBlock(first, count, key, row, std::min(micro_.block_rows, keys - row), padded_keys);
    }
    QueryGradient(first, count, key, keys, padded_keys, dq);
  }

  // One block of keys: p and ds for the queries of the tile that see some of them.
  void KeyBlock(int64_t first, int64_t count, int64_t key, int64_t row, int64_t rows,
                int64_t padded_keys) {
    // The first and last queries that see any of the block's keys, by panels of 32.
    const int64_t from = FirstQuery(key + row, first, count) / kPanelColumns * kPanelColumns;
    const int64_t to = PaddedTo(EndQuery(key + row + rows - 1, first, count), kPanelColumns);
    if (from >= to) return;
    const int64_t unit = kPanelColumns * micro_.block_rows * micro_.element;
    float* s = work().scores.Get<float>(block_floats());
    float* dp = work().slopes.Get<float>(block_floats());
    char* p_left = work().p_left.Get<char>(kTile / kPanelColumns * unit);
    char* ds_left = work().ds_left.Get<char>(kTile / kPanelColumns * unit);
    for (int64_t query = from; query < to; query += kPanelColumns) {
      const int64_t panel = query / kPanelColumns;
      work().k.Multiply(micro_, row, rows, work().q_turned.inner(), work().q_turned.unit(panel), s);
      work().ahead.Fetch(kFetchedBackward);
      work().v.Multiply(micro_, row, rows, work().dy_turned.inner(), work().dy_turned.unit(panel),
                        dp);
      work().ahead.Fetch(kFetchedBackward);
      const int64_t place = (query - from) / kPanelColumns * unit;
      char* ds =
          work().ds.Get<char>(0) + (panel * padded_keys + row) * kPanelColumns * micro_.element;
      Slopes({first, count, key + row, rows, query}, s, dp, p_left + place, ds_left + place, ds);
      work().ahead.Fetch(kFetchedBackward);
    }
    for (int64_t panel = 0; panel < panels_; ++panel) {
      const int64_t at = (key + row) * wide_ + panel * block_floats();
      micro_.multiply(rows, to - from, p_left, work().dy.from(micro_, panel, from), dv_ + at, true);
      work().ahead.Fetch(kFetchedBackward);
      micro_.multiply(rows, to - from, ds_left, work().q.from(micro_, panel, from), dk_ + at, true);
      work().ahead.Fetch(kFetchedBackward);
    }
  }

  // Queries of the tile, counted from its start, that see a key: [FirstQuery, EndQuery).
  int64_t FirstQuery(int64_t key, int64_t first, int64_t count) const {
    if (!s_.causal) return 0;
    return std::clamp<int64_t>(key - (s_.keys - s_.queries) - first, 0, count);
  }
  int64_t EndQuery(int64_t key, int64_t first, int64_t count) const {
    if (s_.window == 0) return count;
    return std::clamp<int64_t>(key - (s_.keys - s_.queries) + s_.window - first, 0, count);
  }

  // `count` queries from `first` on, of which 32 from `query` on; `rows` keys from `key` on.
  struct Place {
    int64_t first, count, key, rows, query;
  };
  // p and ds, in place of s and dp, as left sides, and ds as part of a right side.
  void Slopes(const Place& at, float* s, float* dp, char* p_left, char* ds_left, char* ds) {
    const simd::Loops& loops = simd::BestLoops();
    int32_t begin[kPanelColumns], end[kPanelColumns];
    for (int64_t i = 0; i < at.rows; ++i) {
      begin[i] = static_cast<int32_t>(FirstQuery(at.key + i, at.first, at.count) - at.query);
      end[i] = static_cast<int32_t>(EndQuery(at.key + i, at.first, at.count) - at.query);
    }
    const simd::SlopeBlock block{at.rows,
                                 static_cast<float>(s_.scale),
                                 bias_ == nullptr ? nullptr : bias_ + at.key,
                                 begin,
                                 end,
                                 work().log_sums.Get<float>(kTile) + at.query,
                                 work().dots.Get<float>(kTile) + at.query};
    if (dtype_ == DType::kBF16) {
      loops.slopes_bf16(block, s, dp, reinterpret_cast<uint16_t*>(p_left),
                        reinterpret_cast<uint16_t*>(ds_left), reinterpret_cast<uint16_t*>(ds));
      return;
    }
    loops.slopes(block, s, dp);
    const gemm::Source tile{DType::kF32, kPanelColumns, 1};
    micro_.pack_blocks({s, tile, 0, at.rows, kPanelColumns, kPanelColumns}, p_left);
    micro_.pack_blocks({dp, tile, 0, at.rows, kPanelColumns, kPanelColumns}, ds_left);
    std::memcpy(ds, dp, at.rows * kPanelColumns * sizeof(float));
  }

  // dq^T += K^T ds^T, 32 queries at a time.
  void QueryGradient(int64_t first, int64_t count, int64_t key, int64_t keys, int64_t padded_keys,
                     float* dq) {
    for (int64_t query = 0; query < count; query += kPanelColumns) {
      const int64_t last = std::min(kPanelColumns, count - query) - 1;
      // Keys from `end` on are seen by none of these queries.
      const int64_t end = std::clamp<int64_t>(s_.EndKey(first + query + last) - key, 0, keys);
      if (end == 0) continue;
      const char* ds = work().ds.Get<char>(0) + query * padded_keys * micro_.element;
      for (int64_t row = 0; row < s_.size; row += micro_.block_rows) {
        micro_.multiply(std::min(micro_.block_rows, s_.size - row), PaddedTo(end, kPanelColumns),
                        work().k_turned.unit(row / micro_.block_rows), ds,
                        dq + query * padded_size_ + row * kPanelColumns, true);
        work().ahead.Fetch(kFetchedBackward);
      }
    }
  }

  // Blocks lie panel by panel: [panels][block rows][32].
  void Store(const float* block, int64_t rows, const TensorView& to, int64_t at,
             int64_t pitch) const {
    const simd::Loops& loops = simd::BestLoops();
    for (int64_t panel = 0; panel < panels_; ++panel) {
      const float* from = block + panel * block_floats();
      const int64_t column = panel * kPanelColumns;
      const int64_t columns = std::min(kPanelColumns, s_.size - column);
      if (to.type.dtype == DType::kBF16) {
        loops.to_bf16_rows(rows, columns, from, kPanelColumns, to.as<uint16_t>() + at + column,
                           pitch);
      } else {
        loops.copy_rows(rows, columns, from, kPanelColumns, to.as<float>() + at + column, pitch);
      }
    }
  }

  const KernelContext& context_;
  const AttentionPlaces& places_;
  const AttentionShape& s_;
  const DType dtype_;
  const Micro& micro_;
  const int64_t image_, kv_head_, panels_, wide_;
  const int64_t padded_size_;  // of a head, to whole blocks
  const float* const bias_;
  float* dk_ = nullptr;  // [keys / block rows][panels][block rows][32]
  float* dv_ = nullptr;
};

void BackwardHeads(const KernelContext& context, const AttentionPlaces& places) {
  const AttentionShape s(context, places);
  ComputeLoop(s.batch * s.kv_heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      BackwardHead(context, places, s, i / s.kv_heads, i % s.kv_heads).Run(i + 1 < end);
    }
  });
}

}  // namespace

void Backward(const KernelContext& context) {
  BackwardHeads(context, kGradPlaces);
}
void PackedBackward(const KernelContext& context) {
  BackwardHeads(context, kPackedGradPlaces);
}

}  // namespace lepton::kernels::attention
