#include "collectives/tree_shape.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "collectives/algorithms/tree_reduce.h"
#include "tests/collectives/reference.h"

namespace lepton::collectives {
namespace {

using Vector = std::vector<float>;

Vector Leaf(int leaf, size_t count) {
  const auto bytes = MakeInput(leaf, 11, count, DataType::kFloat32);
  Vector out(count);
  std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

Vector Sum(const std::vector<Vector>& inputs, const std::vector<int>& splits) {
  std::vector<const void*> pointers;
  for (const Vector& input : inputs) pointers.push_back(input.data());
  Vector out(inputs[0].size());
  TreeReduce(out.data(), pointers.data(), splits, out.size(), DataType::kFloat32, ReduceOp::kSum);
  return out;
}

// What a rank would send: the sum of its leaves, in their own tree.
Vector OfRank(int rank, int ranks, const std::vector<Vector>& leaves) {
  const auto [begin, end] = LeavesOf(rank, ranks, static_cast<int>(leaves.size()));
  if (begin == end) return Vector(leaves[0].size(), -0.0f);
  return Sum({leaves.begin() + begin, leaves.begin() + end}, TreeSplits(end - begin, end - begin));
}

TEST(TreeShapeTest, TheSumHasTheSameBitsForAnyNumberOfRanks) {
  for (int count = 1; count <= 16; ++count) {
    std::vector<Vector> leaves;
    for (int leaf = 0; leaf < count; ++leaf) leaves.push_back(Leaf(leaf, 37));
    leaves[0][0] = -0.0f;
    const Vector whole = Sum(leaves, TreeSplits(count, count));
    for (int ranks = 1; ranks <= count + 3; ++ranks) {
      std::vector<Vector> parts;
      for (int rank = 0; rank < ranks; ++rank) parts.push_back(OfRank(rank, ranks, leaves));
      const Vector sum = Sum(parts, TreeSplits(ranks, count));
      EXPECT_EQ(std::memcmp(sum.data(), whole.data(), sum.size() * sizeof(float)), 0)
          << count << " leaves on " << ranks << " ranks";
    }
  }
}

TEST(TreeShapeTest, RanksThatAreKeptOutChangeNoBit) {
  for (int count = 1; count <= 9; ++count) {
    std::vector<Vector> leaves;
    for (int leaf = 0; leaf < count; ++leaf) leaves.push_back(Leaf(leaf, 37));
    leaves[0][0] = -0.0f;
    const Vector whole = Sum(leaves, TreeSplits(count, count));
    for (int ranks = 1; ranks <= count + 3; ++ranks) {
      for (int holders = 1; holders <= ranks; ++holders) {
        std::vector<Vector> parts;
        for (int rank = 0; rank < ranks; ++rank) parts.push_back(OfRank(rank, holders, leaves));
        const Vector sum = Sum(parts, TreeSplits(ranks, count, holders));
        EXPECT_EQ(std::memcmp(sum.data(), whole.data(), sum.size() * sizeof(float)), 0)
            << count << " leaves on " << holders << " of " << ranks << " ranks";
      }
    }
  }
}

TEST(TreeShapeTest, EveryLeafIsHeldOnceInOrderAndNoRankIsLeftOut) {
  for (int leaves = 1; leaves <= 40; ++leaves) {
    for (int ranks = 1; ranks <= 45; ++ranks) {
      int next = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const auto [begin, end] = LeavesOf(rank, ranks, leaves);
        ASSERT_EQ(begin, next) << rank << " of " << ranks << " ranks, " << leaves << " leaves";
        ASSERT_TRUE(end > begin || ranks > leaves) << rank << " of " << ranks;
        next = end;
      }
      ASSERT_EQ(next, leaves);
      ASSERT_EQ(TreeSplits(ranks, leaves).size(), static_cast<size_t>(ranks - 1));
    }
  }
}

TEST(TreeShapeTest, SharesAreThoseOfTheHeader) {
  const std::vector<std::vector<int>> expected = {{8},
                                                  {4, 4},
                                                  {2, 2, 4},
                                                  {2, 2, 2, 2},
                                                  {1, 1, 2, 2, 2},
                                                  {1, 1, 2, 1, 1, 2},
                                                  {1, 1, 1, 1, 1, 1, 2}};
  for (const std::vector<int>& shares : expected) {
    std::vector<int> found;
    const int ranks = static_cast<int>(shares.size());
    for (int rank = 0; rank < ranks; ++rank) {
      const auto [begin, end] = LeavesOf(rank, ranks, 8);
      found.push_back(end - begin);
    }
    EXPECT_EQ(found, shares) << ranks << " ranks";
  }
}

TEST(TreeShapeTest, SplitIsTheLargestPowerOfTwoBelow) {
  EXPECT_EQ(TreeSplit(2), 1);
  EXPECT_EQ(TreeSplit(3), 2);
  EXPECT_EQ(TreeSplit(4), 2);
  EXPECT_EQ(TreeSplit(5), 4);
  EXPECT_EQ(TreeSplit(8), 4);
  EXPECT_EQ(TreeSplit(9), 8);
}

}  // namespace
}  // namespace lepton::collectives
