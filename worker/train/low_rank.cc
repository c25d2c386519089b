#include "worker/train/low_rank.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/thread_pool.h"
#include "runtime/tensor/counter_random.h"

namespace lepton::worker {
namespace {

constexpr int64_t kGrainElements = 1 << 15;  // for which another thread is worth waking
constexpr int kLanes = 16;  // partial sums of a dot product, added in order at the end

// Sums in lanes: the same order for any machine and number of threads.
float Dot(const float* a, const float* b, int64_t count) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += a[i + lane] * b[i + lane];
  }
  for (int lane = 0; i < count; ++i, ++lane) lanes[lane] += a[i] * b[i];
  float sum = 0;
  for (const float lane : lanes) sum += lane;
  return sum;
}

void AddScaled(float* to, const float* from, float scale, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] += scale * from[i];
}

int64_t Grain(int64_t elements_each) {
  return std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, elements_each));
}

}  // namespace

LowRank::LowRank(const std::vector<nn::ParameterView>& parameters, int rank, uint64_t seed)
    : rank_(rank), seed_(seed), matrix_of_(parameters.size(), -1), left_fold_(0), right_fold_(0) {
  int64_t left = 0, right = 0;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const nn::ParameterView& view = parameters[i];
    if (view.statistic || view.shape.size() < 2) continue;
    Matrix matrix{view.offset, view.shape[0], view.size / view.shape[0], elements_, left, right};
    const int64_t factors = rank * (matrix.rows + matrix.columns);
    if (2 * factors > matrix.size() || rank > std::min(matrix.rows, matrix.columns)) continue;
    matrix_of_[i] = static_cast<int>(matrices_.size());
    matrices_.push_back(matrix);
    elements_ += matrix.size();
    left += rank * matrix.rows;
    right += rank * matrix.columns;
  }
  lefts_.resize(left);
  rights_.resize(right);
  shard_factors_.resize(std::max(left, right));
  left_fold_ = TreeFold(lefts_.size());
  right_fold_ = TreeFold(rights_.size());
}

void LowRank::Reset(int mine, int shards) {
  shards_ = shards;
  residuals_.assign(mine, std::vector<float>(elements_, 0.0f));
  DrawRights(0, rights_.size());
}

// Any numbers that are not all in a hyperplane will do.
void LowRank::DrawRights(size_t begin, size_t end) {
  const RandomKey key{seed_, 0x10f2, 0, 0};
  for (size_t i = begin; i < end; ++i) {
    const auto bits = RandomBlock(key, static_cast<uint32_t>(i / 4));
    rights_[i] = static_cast<float>(bits[i % 4]) / 2147483648.0f - 1.0f;
  }
}

// Of nothing comes nothing: a vector of zeros would stay so, step by step.
void LowRank::DrawWhatIsZero(const Matrix& matrix) {
  for (int k = 0; k < rank_; ++k) {
    const auto begin = rights_.begin() + matrix.right + k * matrix.columns;
    const auto end = begin + matrix.columns;
    if (std::any_of(begin, end, [](float value) { return value != 0; })) continue;
    DrawRights(static_cast<size_t>(begin - rights_.begin()),
               static_cast<size_t>(end - rights_.begin()));
  }
}

void LowRank::Begin() {
  next_ = 0;
  left_fold_.Reset();
}

void LowRank::AddShard(std::span<const float> gradients) {
  float* const totals = residuals_[next_].data();
  for (const Matrix& matrix : matrices_) {
    AddResidual(matrix, gradients, totals + matrix.residual);
    MultiplyRight(matrix, totals + matrix.residual, shard_factors_.data() + matrix.left);
  }
  left_fold_.Add(std::span(shard_factors_).first(lefts_.size()));
  ++next_;
}

void LowRank::AddMatrix(size_t parameter, std::span<const float> gradients) {
  const Matrix& matrix = matrices_[matrix_of_[parameter]];
  float* const total = residuals_[next_].data() + matrix.residual;
  AddResidual(matrix, gradients, total);
  MultiplyRight(matrix, total, lefts_.data() + matrix.left);
  left_fold_.AddLast(matrix.left, left(parameter));
}

void LowRank::AddNothing() {
  std::fill(lefts_.begin(), lefts_.end(), -0.0f);
}

std::span<float> LowRank::left(size_t parameter) {
  const Matrix& matrix = matrices_[matrix_of_[parameter]];
  return std::span(lefts_).subspan(matrix.left, rank_ * matrix.rows);
}

void LowRank::AddResidual(const Matrix& matrix, std::span<const float> gradients,
                          float* total) const {
  const float* const from = gradients.data() + matrix.offset;
  ThreadPool::Compute().ParallelFor(matrix.size(), kGrainElements, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) total[i] += from[i];
  });
}

// left[k, i] = row i of the total times row k of right.
void LowRank::MultiplyRight(const Matrix& matrix, const float* total, float* left) const {
  const int64_t columns = matrix.columns;
  const float* const right = rights_.data() + matrix.right;
  ThreadPool::Compute().ParallelFor(
      matrix.rows, Grain(columns * rank_), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          for (int k = 0; k < rank_; ++k) {
            left[k * matrix.rows + i] = Dot(total + i * columns, right + k * columns, columns);
          }
        }
      });
}

// right[k, j] = column j of the total times row k of left: rows added in order.
void LowRank::MultiplyLeft(const Matrix& matrix, const float* total, float* right) const {
  const int64_t columns = matrix.columns;
  const float* const left = lefts_.data() + matrix.left;
  ThreadPool::Compute().ParallelFor(
      columns, std::max<int64_t>(64, Grain(matrix.rows * rank_)), [&](int64_t begin, int64_t end) {
        for (int k = 0; k < rank_; ++k) {
          std::fill(right + k * columns + begin, right + k * columns + end, 0.0f);
        }
        for (int64_t i = 0; i < matrix.rows; ++i) {
          for (int k = 0; k < rank_; ++k) {
            AddScaled(right + k * columns + begin, total + i * columns + begin,
                      left[k * matrix.rows + i], end - begin);
          }
        }
      });
}

// Gram and Schmidt's way, modified. A vector that depends on those before it becomes 0, and so does
// what goes with it of the right factor.
void LowRank::Orthonormalize(const Matrix& matrix) {
  float* const left = lefts_.data() + matrix.left;
  for (int k = 0; k < rank_; ++k) {
    float* const vector = left + k * matrix.rows;
    const float before = std::sqrt(Dot(vector, vector, matrix.rows));
    for (int pass = 0; pass < 2; ++pass) {  // what rounding left of the others, too
      for (int other = 0; other < k; ++other) {
        const float* const basis = left + other * matrix.rows;
        AddScaled(vector, basis, -Dot(vector, basis, matrix.rows), matrix.rows);
      }
    }
    const float norm = std::sqrt(Dot(vector, vector, matrix.rows));
    // NaN stays NaN: the training loop must see it.
    const float scale = norm <= 1e-4f * before || norm == 0 ? 0.0f : 1.0f / norm;
    for (int64_t i = 0; i < matrix.rows; ++i) vector[i] *= scale;
  }
}

std::span<float> LowRank::Rights() {
  for (const Matrix& matrix : matrices_) Orthonormalize(matrix);
  right_fold_.Reset();
  for (const std::vector<float>& totals : residuals_) {
    for (const Matrix& matrix : matrices_) {
      MultiplyLeft(matrix, totals.data() + matrix.residual, shard_factors_.data() + matrix.right);
    }
    right_fold_.Add(std::span(shard_factors_).first(rights_.size()));
  }
  right_fold_.Finish(rights_);
  return rights_;
}

void LowRank::Decompress(std::span<float> gradients) {
  const float share = 1.0f / static_cast<float>(shards_);
  for (const Matrix& matrix : matrices_) {
    const int64_t columns = matrix.columns;
    const float* const left = lefts_.data() + matrix.left;
    const float* const right = rights_.data() + matrix.right;
    float* const out = gradients.data() + matrix.offset;
    ThreadPool::Compute().ParallelFor(
        matrix.rows, Grain(columns * rank_), [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) {
            float* const row = out + i * columns;
            std::fill(row, row + columns, 0.0f);
            for (int k = 0; k < rank_; ++k) {
              AddScaled(row, right + k * columns, left[k * matrix.rows + i], columns);
            }
            for (std::vector<float>& residual : residuals_) {
              AddScaled(residual.data() + matrix.residual + i * columns, row, -share, columns);
            }
          }
        });
    DrawWhatIsZero(matrix);
  }
}

}  // namespace lepton::worker
