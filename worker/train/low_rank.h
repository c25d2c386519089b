// Gradients of matrices as products of two thin factors: PowerSGD (Vogels, Karimireddy and Jaggi
// 2019), with the residual of every logical shard kept, so that nothing of a gradient is lost for
// good. Per step and matrix G of [rows, columns], rank r, over shards s of V:
//   left   = sum over s of (G_s + E_s) right      right: the last step's; at first, and where that
//                                                 is 0, random
//   left   made orthonormal
//   right  = sum over s of (G_s + E_s)^T left
//   G      = left right^T                         what the optimiser sees
//   E_s    = (G_s + E_s) - G / V
// Both sums go over all ranks in the tree of the shards (collectives/tree_shape.h), and everything
// else is the same on all ranks or belongs to one shard: the bits do not show the number of ranks.
//
// State: E_s of this rank's shards (as many floats as the compressed matrices have, each) and
// `right`. It lives as long as the group: docs/decisions/gradient-compression.md.
// Threads: one caller; loops run on ThreadPool::Compute().
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/nn/training_program.h"
#include "worker/train/tree_fold.h"

namespace lepton::worker {

class LowRank {
 public:
  LowRank(const std::vector<nn::ParameterView>& parameters, int rank, uint64_t seed);

  // Whether factors are much less than the matrix: at most half of it.
  bool Compresses(size_t parameter) const { return matrix_of_[parameter] >= 0; }
  // Forgets residuals and factors: a new group, with so many of all `shards` on this rank.
  void Reset(int mine, int shards);

  // A step: Begin; for each of the rank's shards but the last AddShard, for the last one AddMatrix
  // of each matrix in any order, with gradients as of the program. left() is then this rank's sum.
  void Begin();
  void AddShard(std::span<const float> gradients);
  void AddMatrix(size_t parameter, std::span<const float> gradients);
  // Of a rank without a shard: what adds nothing.
  void AddNothing();
  // The left factor of one matrix: to be summed over ranks.
  std::span<float> left(size_t parameter);
  // With all left factors summed: the right ones, all in a row; to be summed over ranks.
  std::span<float> Rights();
  // With these summed: writes the matrices to `gradients`, and keeps the residuals.
  void Decompress(std::span<float> gradients);

  // Floats that a rank sends in a step for all compressed matrices, and what they would be whole.
  int64_t factor_elements() const { return static_cast<int64_t>(lefts_.size() + rights_.size()); }
  int64_t matrix_elements() const { return elements_; }

 private:
  struct Matrix {
    int64_t offset = 0;  // in the gradients
    int64_t rows = 0, columns = 0;
    int64_t residual = 0, left = 0, right = 0;  // where its numbers begin
    int64_t size() const { return rows * columns; }
  };
  void AddResidual(const Matrix& matrix, std::span<const float> gradients, float* total) const;
  void MultiplyRight(const Matrix& matrix, const float* total, float* left) const;
  void MultiplyLeft(const Matrix& matrix, const float* total, float* right) const;
  void Orthonormalize(const Matrix& matrix);
  void DrawRights(size_t begin, size_t end);
  void DrawWhatIsZero(const Matrix& matrix);

  const int rank_;
  const uint64_t seed_;
  std::vector<int> matrix_of_;  // by parameter; -1: not compressed
  std::vector<Matrix> matrices_;
  int64_t elements_ = 0;
  int shards_ = 1;
  std::vector<std::vector<float>> residuals_;  // by this rank's shards; within a step with gradient
  size_t next_ = 0;                            // the shard that is being added
  // Factors are held as rank rows of vectors: [rank, rows] and [rank, columns], each matrix its
  // own.
  std::vector<float> lefts_, rights_, shard_factors_;
  TreeFold left_fold_, right_fold_;
};

}  // namespace lepton::worker
