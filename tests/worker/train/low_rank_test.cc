// The factors find what a low rank can hold, and what it cannot comes with later steps.
#include "worker/train/low_rank.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace lepton::worker {
namespace {

constexpr int64_t kRows = 30, kColumns = 50;

std::vector<nn::ParameterView> OneMatrix() {
  return {{"vector", {7}, 0, 7}, {"matrix", {kRows, kColumns}, 7, kRows * kColumns}};
}

// `rank` random products of vectors; behind a vector parameter of 7.
std::vector<float> MatrixOfRank(int rank) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  std::vector<float> values(7 + kRows * kColumns);
  for (int k = 0; k < rank; ++k) {
    std::vector<float> left(kRows), right(kColumns);
    for (float& value : left) value = normal(random);
    for (float& value : right) value = normal(random);
    for (int64_t i = 0; i < kRows * kColumns; ++i) {
      values[7 + i] += left[i / kColumns] * right[i % kColumns];
    }
  }
  return values;
}

// What the optimiser sees of one shard's gradient.
std::vector<float> Step(LowRank& low_rank, const std::vector<float>& gradient) {
  low_rank.Begin();
  low_rank.AddMatrix(1, gradient);
  low_rank.Rights();
  std::vector<float> seen(gradient.size());
  low_rank.Decompress(seen);
  return seen;
}

double Distance(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, size = 0;
  for (size_t i = 7; i < a.size(); ++i) {
    difference += std::pow(a[i] - b[i], 2);
    size += std::pow(b[i], 2);
  }
  return std::sqrt(difference / size);
}

TEST(LowRank, TakesMatricesWhoseFactorsAreMuchLess) {
  const LowRank small(OneMatrix(), 4, 0), large(OneMatrix(), 12, 0);
  EXPECT_FALSE(small.Compresses(0));
  EXPECT_TRUE(small.Compresses(1));
  EXPECT_EQ(small.factor_elements(), 4 * (kRows + kColumns));
  EXPECT_EQ(small.matrix_elements(), kRows * kColumns);
  EXPECT_FALSE(large.Compresses(1)) << "its factors are more than half of the matrix";
}

TEST(LowRank, AMatrixOfThatRankComesThroughWhole) {
  LowRank low_rank(OneMatrix(), 3, 9);
  low_rank.Reset(1, 1);
  const auto gradient = MatrixOfRank(3);
  EXPECT_LT(Distance(Step(low_rank, gradient), gradient), 1e-4);
  // One of a lower rank leaves factors without a direction: no division by nothing.
  const auto thin = MatrixOfRank(1);
  EXPECT_LT(Distance(Step(low_rank, thin), thin), 1e-3);
}

TEST(LowRank, WhatIsLeftOutComesWithLaterSteps) {
  LowRank low_rank(OneMatrix(), 2, 9);
  low_rank.Reset(1, 1);
  const auto gradient = MatrixOfRank(20);
  std::vector<float> mean(gradient.size());
  constexpr int kSteps = 100;
  double first = 0;
  for (int step = 0; step < kSteps; ++step) {
    const auto seen = Step(low_rank, gradient);
    if (step == 0) first = Distance(seen, gradient);
    for (size_t i = 0; i < mean.size(); ++i) mean[i] += seen[i] / kSteps;
  }
  EXPECT_GT(first, 0.5) << "two of twenty directions";
  EXPECT_LT(Distance(mean, gradient), 0.12);
}

// A batch of one row, or of nothing to learn, leaves directions without anything in them.
TEST(LowRank, ADirectionThatWasEmptyOnceIsUsedAgain) {
  for (const int rank : {0, 1}) {
    LowRank low_rank(OneMatrix(), 3, 9);
    low_rank.Reset(1, 1);
    Step(low_rank, MatrixOfRank(rank));
    const auto gradient = MatrixOfRank(3);
    Step(low_rank, gradient);  // the directions are looked for
    EXPECT_LT(Distance(Step(low_rank, gradient), gradient), 1e-3) << rank;
  }
}

TEST(LowRank, NaNIsNotHidden) {
  LowRank low_rank(OneMatrix(), 2, 9);
  low_rank.Reset(1, 1);
  auto gradient = MatrixOfRank(2);
  gradient[100] = std::nanf("");
  const auto seen = Step(low_rank, gradient);
  EXPECT_TRUE(std::isnan(seen[100]));
}

}  // namespace
}  // namespace lepton::worker
