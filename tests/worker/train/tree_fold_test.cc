#include "worker/train/tree_fold.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace lepton::worker {
namespace {

std::vector<float> Leaves(int count) {
  std::mt19937 random(3);
  std::uniform_real_distribution<float> uniform(-1e4f, 1e4f);
  std::vector<float> leaves(count);
  for (float& leaf : leaves) leaf = uniform(random) / static_cast<float>(1 + random() % 1000);
  return leaves;
}

// The tree as the communicator defines it, level by level.
float Reference(std::vector<float> level) {
  while (level.size() > 1) {
    std::vector<float> next;
    for (size_t i = 0; i < level.size(); i += 2) {
      next.push_back(i + 1 < level.size() ? level[i] + level[i + 1] : level[i]);
    }
    level = next;
  }
  return level[0];
}

float Fold(std::span<const float> leaves) {
  TreeFold fold(1);
  for (const float& leaf : leaves) fold.Add({&leaf, 1});
  float sum = 0;
  fold.Finish({&sum, 1});
  return sum;
}

TEST(TreeFold, AddsInTheCommunicatorsTree) {
  for (int count = 1; count <= 33; ++count) {
    const std::vector<float> leaves = Leaves(count);
    EXPECT_EQ(Fold(leaves), Reference(leaves)) << count << " leaves";
  }
}

// The point of it: ranks fold their own shards, the communicator folds the ranks.
TEST(TreeFold, SubtreesOnRanksGiveTheBitsOfTheWholeTree) {
  const std::vector<float> leaves = Leaves(64);
  const float whole = Fold(leaves);
  for (const int ranks : {1, 2, 4, 8, 16}) {
    std::vector<float> partial;
    const size_t each = leaves.size() / ranks;
    for (int rank = 0; rank < ranks; ++rank) {
      partial.push_back(Fold(std::span(leaves).subspan(rank * each, each)));
    }
    EXPECT_EQ(Fold(partial), whole) << ranks << " ranks";
  }
}

TEST(TreeFold, NothingAddsUpToZeroAndResetForgets) {
  TreeFold fold(2);
  std::vector<float> sum = {7, 7};
  fold.Finish(sum);
  EXPECT_EQ(sum, (std::vector<float>{0, 0}));
  for (int i = 0; i < 3; ++i) fold.Add(std::vector<float>{1, 2});
  fold.Reset();
  fold.Add(std::vector<float>{5, 6});
  fold.Finish(sum);
  EXPECT_EQ(sum, (std::vector<float>{5, 6}));
}

}  // namespace
}  // namespace lepton::worker
