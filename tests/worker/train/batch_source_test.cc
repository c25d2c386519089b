#include "worker/train/batch_source.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <vector>

namespace lepton::worker {
namespace {

// Row i has the features (i, -i) and class i % 3.
DataPart NumberedRows(int64_t rows) {
  DataPart part;
  for (int64_t i = 0; i < rows; ++i) {
    part.row_numbers.push_back(i);
    part.x.push_back(static_cast<float>(i));
    part.x.push_back(static_cast<float>(-i));
    part.classes.push_back(static_cast<int32_t>(i % 3));
  }
  return part;
}

std::vector<int64_t> Order(uint64_t seed, uint64_t epoch, int64_t count) {
  std::vector<int64_t> order;
  for (int64_t i = 0; i < count; ++i) order.push_back(PermutedIndex(seed, epoch, count, i));
  return order;
}

TEST(PermutedIndex, IsAPermutationForAnyCount) {
  for (const int64_t count : {1, 2, 3, 5, 16, 17, 100, 1437, 4096}) {
    std::vector<int64_t> order = Order(7, 3, count);
    std::sort(order.begin(), order.end());
    for (int64_t i = 0; i < count; ++i) ASSERT_EQ(order[i], i) << "count " << count;
  }
}

TEST(PermutedIndex, DependsOnSeedAndEpochAlone) {
  EXPECT_EQ(Order(1, 0, 100), Order(1, 0, 100));
  EXPECT_NE(Order(1, 0, 100), Order(1, 1, 100));
  EXPECT_NE(Order(1, 0, 100), Order(2, 0, 100));
}

// Over many epochs each row comes first about equally often (chi-squared, 9 degrees of freedom).
TEST(PermutedIndex, SpreadsRowsEvenlyOverPlaces) {
  std::vector<int> first(10);
  constexpr int kEpochs = 10000;
  for (int epoch = 0; epoch < kEpochs; ++epoch) ++first[PermutedIndex(42, epoch, 10, 0)];
  double chi_squared = 0;
  for (const int count : first) chi_squared += (count - 1000.0) * (count - 1000.0) / 1000.0;
  EXPECT_LT(chi_squared, 27.9);  // p = 0.001
}

std::span<const float> Features(const MicroBatch& batch) {
  return batch.batch.inputs[0].span<const float>();
}

TEST(BatchSource, UsesEveryRowOnceInEachEpochForAnyNumberOfShards) {
  const DataPart part = NumberedRows(103);
  for (const int shards : {1, 2, 3, 4, 7}) {
    BatchSource source(part, {.features = 2, .outputs = 3, .batch_size = 20, .shards = shards});
    ASSERT_EQ(source.steps_per_epoch(), 6);
    for (uint64_t epoch = 0; epoch < 2; ++epoch) {
      std::multiset<int> seen;
      for (uint64_t step = epoch * 6; step < epoch * 6 + 6; ++step) {
        int64_t rows = 0;
        for (int shard = 0; shard < shards; ++shard) {
          const MicroBatch batch = source.Shard(step, shard);
          rows += batch.rows;
          for (int64_t i = 0; i < batch.rows; ++i) {
            const auto x = Features(batch);
            const int row = static_cast<int>(x[2 * i]);
            EXPECT_EQ(x[2 * i + 1], -row);
            EXPECT_EQ(batch.targets.classes[i], row % 3);
            seen.insert(row);
          }
        }
        EXPECT_EQ(rows, source.BatchRows(step));
        EXPECT_EQ(rows, step % 6 == 5 ? 3 : 20) << "the last batch holds what is left";
      }
      EXPECT_EQ(seen.size(), 103u);
      EXPECT_EQ(std::set<int>(seen.begin(), seen.end()).size(), 103u);
    }
  }
}

TEST(BatchSource, ShardsAreThePiecesOfOneGlobalBatch) {
  const DataPart part = NumberedRows(50);
  BatchSource whole(part, {.features = 2, .outputs = 3, .batch_size = 10, .shards = 1, .seed = 5});
  BatchSource cut(part, {.features = 2, .outputs = 3, .batch_size = 10, .shards = 4, .seed = 5});
  for (uint64_t step = 0; step < 10; ++step) {
    const auto x = Features(whole.Shard(step, 0));
    const std::vector<float> expected(x.begin(), x.end());
    std::vector<float> actual;
    for (int shard = 0; shard < 4; ++shard) {
      const auto piece = Features(cut.Shard(step, shard));
      actual.insert(actual.end(), piece.begin(), piece.end());
    }
    EXPECT_EQ(actual, expected);
  }
}

TEST(BatchSource, TeacherLogitsFollowTheirRows) {
  const DataPart part = NumberedRows(30);
  std::vector<float> logits(30 * 3);
  std::iota(logits.begin(), logits.end(), 0.0f);
  BatchSource source(
      part, {.features = 2, .outputs = 3, .batch_size = 8, .shards = 2, .teacher_logits = logits});
  const MicroBatch batch = source.Shard(2, 1);
  ASSERT_EQ(batch.rows, 4);
  for (int64_t i = 0; i < batch.rows; ++i) {
    EXPECT_EQ(batch.targets.teacher_logits[3 * i + 2], 3 * Features(batch)[2 * i] + 2);
  }
}

TEST(BatchSource, ABatchLargerThanTheDataIsTheData) {
  const DataPart part = NumberedRows(5);
  BatchSource source(part, {.features = 2, .outputs = 3, .batch_size = 64, .shards = 8});
  EXPECT_EQ(source.steps_per_epoch(), 1);
  int64_t rows = 0;
  for (int shard = 0; shard < 8; ++shard) rows += source.Shard(0, shard).rows;
  EXPECT_EQ(rows, 5);
}

TEST(RankOfShard, GivesEachRankAContiguousRun) {
  std::vector<int> ranks;
  for (int shard = 0; shard < 8; ++shard) ranks.push_back(RankOfShard(shard, 8, 3));
  EXPECT_EQ(ranks, (std::vector<int>{0, 0, 0, 1, 1, 1, 2, 2}));
}

}  // namespace
}  // namespace lepton::worker
