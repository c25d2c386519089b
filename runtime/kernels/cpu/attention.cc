#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "runtime/kernels/cpu/attention_shape.h"
#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/kernels/cpu/simd/loops.h"
#include "runtime/kernels/cpu/transformer_kernels.h"

namespace lepton::kernels::transformer {
namespace {

using graph::KernelContext;

constexpr int64_t kTile = 64;  // queries, and keys, at a time

// What one thread works in; columns of `wide` arrays are padded to a multiple of 16.
struct Workspace {
  std::vector<float> scores, probabilities, turned, keys_turned, values_turned;
  std::vector<float> padded[4], wide[3];
};

Workspace& ThreadWorkspace() {
  thread_local Workspace workspace;
  return workspace;
}

int64_t PaddedSize(int64_t size) {
  return (size + 15) / 16 * 16;
}

float* Zeros(std::vector<float>& storage, int64_t count) {
  storage.assign(count, 0.0f);
  return storage.data();
}

// Rows `pitch` apart, side by side with padded columns.
const float* Padded(const float* rows, int64_t pitch, int64_t count, int64_t size,
                    std::vector<float>& storage) {
  const int64_t wide = PaddedSize(size);
  storage.assign(count * wide, 0.0f);
  for (int64_t i = 0; i < count; ++i) {
    std::copy_n(rows + i * pitch, size, storage.data() + i * wide);
  }
  return storage.data();
}

// [count, size], rows `pitch` apart, as [size, kTile], 0 behind `count`.
const float* Turned(const float* rows, int64_t pitch, int64_t count, int64_t size,
                    std::vector<float>& storage) {
  storage.assign(size * kTile, 0.0f);
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t c = 0; c < size; ++c) storage[c * kTile + i] = rows[i * pitch + c];
  }
  return storage.data();
}

// The part of a tile of keys that a query sees.
struct Visible {
  Visible(const AttentionShape& s, int64_t query, int64_t first_key, int64_t keys)
      : begin(std::clamp<int64_t>(s.FirstKey(query) - first_key, 0, keys)),
        end(std::clamp<int64_t>(s.EndKey(query) - first_key, 0, keys)) {}
  int64_t begin, end;
};

void ScaleAndBias(const AttentionShape& s, const Visible& part, const float* bias, float* row) {
  const auto scale = static_cast<float>(s.scale);
  for (int64_t j = part.begin; j < part.end; ++j) {
    row[j] = row[j] * scale + (bias == nullptr ? 0.0f : bias[j]);
  }
}

struct RunningRow {
  float top = -std::numeric_limits<float>::infinity();
  float sum = 0;
};

// Turns a row of scores into exponentials below the new maximum, 0 where not visible, and rescales
// what was summed up before.
void Absorb(const Visible& part, int64_t keys, int64_t wide, float* scores, float* probabilities,
            RunningRow& row, float* sums) {
  std::fill_n(probabilities, keys, 0.0f);
  if (part.begin >= part.end) return;
  const float top = std::max(row.top, *std::max_element(scores + part.begin, scores + part.end));
  const float shrink = std::exp(row.top - top);
  const int64_t count = part.end - part.begin;
  simd::BestLoops().exp_minus(count, top, scores + part.begin, probabilities + part.begin);
  float sum = 0;
  for (int64_t j = part.begin; j < part.end; ++j) sum += probabilities[j];
  row.sum = row.sum * shrink + sum;
  row.top = top;
  for (int64_t c = 0; c < wide; ++c) sums[c] *= shrink;
}

void ForwardTile(const KernelContext& context, const AttentionShape& s, int64_t head,
                 int64_t first_query) {
  const simd::Loops& loops = simd::BestLoops();
  Workspace& work = ThreadWorkspace();
  const int64_t image = head / s.heads;
  const int64_t kv_head = head % s.heads / s.group();
  const int64_t rows = std::min(kTile, s.queries - first_query);
  const int64_t wide = PaddedSize(s.size);
  const int64_t q_at = s.QueryOffset(image, head % s.heads, first_query);
  const float* q = context.input(0).as<float>() + q_at;
  const float* bias =
      context.inputs() > 3 ? context.input(3).as<float>() + image * s.keys : nullptr;
  float* sums = Zeros(work.wide[0], rows * wide);
  std::vector<RunningRow>& running = [&]() -> std::vector<RunningRow>& {
    thread_local std::vector<RunningRow> storage;
    storage.assign(rows, {});
    return storage;
  }();
  work.probabilities.resize(kTile * kTile);
  const int64_t end = s.EndKey(first_query + rows - 1);
  for (int64_t key = s.FirstKey(first_query) / kTile * kTile; key < end; key += kTile) {
    const int64_t keys = std::min(kTile, s.keys - key);
    const int64_t at = s.KeyOffset(image, kv_head, key);
    const int64_t pitch = s.kv_pitch();
    const float* k =
        Turned(context.input(1).as<float>() + at, pitch, keys, s.size, work.keys_turned);
    const float* v = Padded(context.input(2).as<float>() + at, pitch, keys, s.size, work.padded[0]);
    float* scores = Zeros(work.scores, rows * kTile);
    loops.multiply_block(rows, kTile, s.size, q, s.q_pitch(), k, kTile, scores, kTile);
    for (int64_t i = 0; i < rows; ++i) {
      const Visible part(s, first_query + i, key, keys);
      ScaleAndBias(s, part, bias == nullptr ? nullptr : bias + key, scores + i * kTile);
      Absorb(part, kTile, wide, scores + i * kTile, work.probabilities.data() + i * kTile,
             running[i], sums + i * wide);
    }
    loops.multiply_block(rows, wide, keys, work.probabilities.data(), kTile, v, wide, sums, wide);
  }
  const int64_t row = head * s.queries + first_query;
  for (int64_t i = 0; i < rows; ++i) {
    float* y = context.output(0).as<float>() + q_at + i * s.q_pitch();
    const float factor = 1 / running[i].sum;
    for (int64_t c = 0; c < s.size; ++c) y[c] = sums[i * wide + c] * factor;
    context.output(1).as<float>()[row + i] = running[i].top + std::log(running[i].sum);
  }
}

// The gradients of one key head, and of the queries that look at it.
class Backward {
 public:
  Backward(const KernelContext& context, const AttentionShape& s, int64_t kv_head)
      : context_(context),
        s_(s),
        work_(ThreadWorkspace()),
        kv_head_(kv_head % s.kv_heads),
        image_(kv_head / s.kv_heads),
        wide_(PaddedSize(s.size)),
        bias_(context.inputs() > 6 ? context.input(6).as<float>() + image_ * s.keys : nullptr),
        dk_(Zeros(work_.wide[1], s.keys * wide_)),
        dv_(Zeros(work_.wide[2], s.keys * wide_)) {
    work_.probabilities.resize(kTile * kTile);
  }

  void Run() {
    for (int64_t member = 0; member < s_.group(); ++member) {
      const int64_t head = kv_head_ * s_.group() + member;
      for (int64_t query = 0; query < s_.queries; query += kTile) Queries(head, query);
    }
    const int64_t at = s_.KeyOffset(image_, kv_head_, 0);
    Store(dk_, s_.keys, context_.output(1).as<float>() + at, s_.kv_pitch());
    Store(dv_, s_.keys, context_.output(2).as<float>() + at, s_.kv_pitch());
  }

 private:
  const float* In(int index) const { return context_.input(index).as<float>(); }

  void Store(const float* wide_rows, int64_t rows, float* to, int64_t pitch) const {
    for (int64_t i = 0; i < rows; ++i) std::copy_n(wide_rows + i * wide_, s_.size, to + i * pitch);
  }

  void Queries(int64_t head, int64_t first) {
    const int64_t rows = std::min(kTile, s_.queries - first);
    const int64_t row = (image_ * s_.heads + head) * s_.queries + first;  // of log_sum
    const int64_t at = s_.QueryOffset(image_, head, first);
    float* dq = Zeros(work_.wide[0], rows * wide_);
    const int64_t end = s_.EndKey(first + rows - 1);
    for (int64_t key = s_.FirstKey(first) / kTile * kTile; key < end; key += kTile) {
      Tile(row, at, first, rows, key, dq);
    }
    Store(dq, rows, context_.output(0).as<float>() + at, s_.q_pitch());
  }

  void Tile(int64_t row, int64_t q_at, int64_t first, int64_t rows, int64_t key, float* dq) {
    const simd::Loops& loops = simd::BestLoops();
    const int64_t keys = std::min(kTile, s_.keys - key);
    const int64_t at = s_.KeyOffset(image_, kv_head_, key);
    const int64_t q_pitch = s_.q_pitch(), kv_pitch = s_.kv_pitch();
    const float* q = In(0) + q_at;
    const float* dy = In(5) + q_at;
    float* scores = Zeros(work_.scores, 2 * kTile * kTile);
    float* slopes = scores + kTile * kTile;  // of the probabilities, then of the scores
    loops.multiply_block(rows, kTile, s_.size, q, q_pitch,
                         Turned(In(1) + at, kv_pitch, keys, s_.size, work_.keys_turned), kTile,
                         scores, kTile);
    loops.multiply_block(rows, kTile, s_.size, dy, q_pitch,
                         Turned(In(2) + at, kv_pitch, keys, s_.size, work_.values_turned), kTile,
                         slopes, kTile);
    float* p = work_.probabilities.data();
    for (int64_t i = 0; i < rows; ++i) {
      const Visible part(s_, first + i, key, keys);
      Row(row + i, q_at + i * q_pitch, part, key, scores + i * kTile, p + i * kTile,
          slopes + i * kTile);
    }
    Accumulate(p, rows, keys, Padded(dy, q_pitch, rows, s_.size, work_.padded[0]),
               dv_ + key * wide_);
    Accumulate(slopes, rows, keys, Padded(q, q_pitch, rows, s_.size, work_.padded[1]),
               dk_ + key * wide_);
    loops.multiply_block(rows, wide_, keys, slopes, kTile,
                         Padded(In(1) + at, kv_pitch, keys, s_.size, work_.padded[2]), wide_, dq,
                         wide_);
  }

  // p = exp(score - log_sum); the slope of a score is scale p (slope of p - dy y).
  void Row(int64_t row, int64_t at, const Visible& part, int64_t key, float* scores, float* p,
           float* slopes) {
    std::fill_n(p, kTile, 0.0f);
    ScaleAndBias(s_, part, bias_ == nullptr ? nullptr : bias_ + key, scores);
    if (part.begin < part.end) {
      simd::BestLoops().exp_minus(part.end - part.begin, In(4)[row], scores + part.begin,
                                  p + part.begin);
    }
    float dot = 0;
    for (int64_t c = 0; c < s_.size; ++c) {
      dot += In(3)[at + c] * In(5)[at + c];
    }
    const auto scale = static_cast<float>(s_.scale);
    for (int64_t j = 0; j < kTile; ++j) {
      slopes[j] = j < part.begin || j >= part.end ? 0.0f : scale * p[j] * (slopes[j] - dot);
    }
  }

  // to [keys, wide] += tile^T [keys, rows] * right [rows, wide].
  void Accumulate(const float* tile, int64_t rows, int64_t keys, const float* right, float* to) {
    work_.turned.resize(kTile * kTile);
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < keys; ++j) work_.turned[j * kTile + i] = tile[i * kTile + j];
    }
    simd::BestLoops().multiply_block(keys, wide_, rows, work_.turned.data(), kTile, right, wide_,
                                     to, wide_);
  }

  const KernelContext& context_;
  const AttentionShape& s_;
  Workspace& work_;
  const int64_t kv_head_, image_, wide_;
  const float* bias_;
  float* dk_;
  float* dv_;
};

}  // namespace

void Attention(const KernelContext& context) {
  const AttentionShape s(context.input(0).shape(), context.input(1).shape(), context.attributes());
  const int64_t tiles = (s.queries + kTile - 1) / kTile;
  ComputeLoop(s.batch * s.heads * tiles, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) ForwardTile(context, s, i / tiles, i % tiles * kTile);
  });
}

void AttentionGrad(const KernelContext& context) {
  const AttentionShape s(context.input(0).shape(), context.input(1).shape(), context.attributes());
  ComputeLoop(s.batch * s.kv_heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t kv_head = begin; kv_head < end; ++kv_head) Backward(context, s, kv_head).Run();
  });
}

}  // namespace lepton::kernels::transformer
