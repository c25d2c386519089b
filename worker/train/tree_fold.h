// Sums vectors in one fixed binary tree: (((0+1)+(2+3))+((4+5)+(6+7)))+..., whatever number of them
// there is, keeping log2(n) partial sums. A rank holds a subtree of the shards' tree, in which its
// communicator goes on (collectives/tree_shape.h), so the sum over all shards has the same bits for
// any number of ranks. With Rounding::kBFloat16 leaves and every partial sum are rounded, as
// collectives::ReduceOp::kRoundedSum goes on to do.
// Threads: one caller.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "runtime/tensor/dtype.h"

namespace lepton::worker {

class TreeFold {
 public:
  enum class Rounding { kNone, kBFloat16 };
  explicit TreeFold(size_t size, Rounding rounding = Rounding::kNone)
      : size_(size), rounded_(rounding == Rounding::kBFloat16) {}

  void Reset() { count_ = 0; }
  size_t bytes() const {
    size_t floats = 0;
    for (const std::vector<float>& level : levels_) floats += level.size();
    return floats * sizeof(float);
  }

  // The next leaf; `values` has the fold's size.
  void Add(std::span<const float> values) {
    // Like a binary counter: a trailing 1 bit of the count is a finished subtree to merge with.
    size_t level = 0;
    std::span<const float> carry = values;
    for (; count_ >> level & 1; ++level) {
      AddTo(levels_[level], carry);
      carry = levels_[level];
    }
    if (levels_.size() <= level) levels_.resize(level + 1);
    levels_[level].resize(size_);
    std::copy(carry.begin(), carry.end(), levels_[level].begin());
    if (level == 0) Round(levels_[level]);
    ++count_;
  }

  // The last leaf's part from element `begin` on, in place: it becomes the sum of all leaves, as
  // Add and Finish would give it. Add no leaf behind it.
  void AddLast(size_t begin, std::span<float> values) {
    Round(values);
    for (size_t level = 0; level < levels_.size() && count_ >> level; ++level) {
      if (!(count_ >> level & 1)) continue;
      const float* const left = levels_[level].data() + begin;
      for (size_t i = 0; i < values.size(); ++i) values[i] = left[i] + values[i];
      Round(values);
    }
  }

  // The sum; when nothing was added -0.0, which changes no sum. `out` has the fold's size.
  void Finish(std::span<float> out) {
    const std::vector<float>* carry = nullptr;
    for (size_t level = 0; level < levels_.size() && count_ >> level; ++level) {
      if (!(count_ >> level & 1)) continue;
      // An incomplete right subtree is added to the complete one on its left.
      if (carry != nullptr) AddTo(levels_[level], *carry);
      carry = &levels_[level];
    }
    if (carry == nullptr) {
      std::fill(out.begin(), out.end(), -0.0f);
    } else {
      std::copy(carry->begin(), carry->end(), out.begin());
    }
  }

 private:
  static float Rounded(float value) { return BF16::ToFloat(BF16::FromFloat(value)); }
  void Round(std::span<float> values) const {
    if (!rounded_) return;
    for (float& value : values) value = Rounded(value);
  }
  // left + right, into left.
  void AddTo(std::vector<float>& left, std::span<const float> right) const {
    if (!rounded_) {
      for (size_t i = 0; i < left.size(); ++i) left[i] += right[i];
      return;
    }
    for (size_t i = 0; i < left.size(); ++i) left[i] = Rounded(left[i] + Rounded(right[i]));
  }

  size_t size_;
  bool rounded_;
  uint64_t count_ = 0;
  std::vector<std::vector<float>> levels_;
};

}  // namespace lepton::worker
