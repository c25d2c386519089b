#include "worker/data/batch_source.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>
#include <vector>

namespace lepton::worker {
namespace {

// Row i has the features (i, -i) and class i % 3.
ExamplesPtr NumberedRows(int64_t rows) {
  std::vector<int64_t> numbers;
  std::vector<float> x;
  std::vector<int32_t> classes;
  for (int64_t i = 0; i < rows; ++i) {
    numbers.push_back(i);
    x.push_back(static_cast<float>(i));
    x.push_back(static_cast<float>(-i));
    classes.push_back(static_cast<int32_t>(i % 3));
  }
  auto examples = std::make_shared<TableExamples>(numbers, x, 2);
  examples->SetLabels(classes, {});
  return examples;
}

const nn::Signature kNumbered = nn::Signature::Features(2, 3);

BatchBuffer Filled(const BatchSource& source, uint64_t step, int shard, int piece = 0) {
  BatchBuffer buffer(kNumbered);
  EXPECT_TRUE(source.Fill(step, shard, piece, buffer).ok());
  return buffer;
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

std::vector<float> Features(const BatchBuffer& buffer) {
  if (buffer.rows() == 0) return {};
  const nn::Batch batch = buffer.batch();
  const auto x = batch.inputs[0].span<const float>();
  return {x.begin(), x.end()};
}

TEST(BatchSource, UsesEveryRowOnceInEachEpochForAnyNumberOfShardsAndPieces) {
  const ExamplesPtr part = NumberedRows(103);
  for (const int shards : {1, 2, 3, 4, 7}) {
    const int pieces = shards == 3 ? 4 : 1;
    const BatchSource source(part, {.batch_size = 20, .shards = shards, .pieces = pieces});
    ASSERT_EQ(source.steps_per_epoch(), 6);
    for (uint64_t epoch = 0; epoch < 2; ++epoch) {
      std::multiset<int> seen;
      SampleCount used;
      for (uint64_t step = epoch * 6; step < epoch * 6 + 6; ++step) {
        int64_t rows = 0;
        for (int shard = 0; shard < shards; ++shard) {
          for (int piece = 0; piece < pieces; ++piece) {
            const BatchBuffer batch = Filled(source, step, shard, piece);
            const std::vector<float> x = Features(batch);
            rows += batch.rows();
            used += batch.used;
            for (int64_t i = 0; i < batch.rows(); ++i) {
              const int row = static_cast<int>(x[2 * i]);
              EXPECT_EQ(x[2 * i + 1], -row);
              EXPECT_EQ(batch.classes[i], row % 3);
              seen.insert(row);
            }
          }
        }
        EXPECT_EQ(rows, source.BatchRows(step));
        EXPECT_EQ(source.RowsBefore(step) + static_cast<uint64_t>(rows),
                  source.RowsBefore(step + 1));
        EXPECT_EQ(rows, step % 6 == 5 ? 3 : 20) << "the last batch holds what is left";
      }
      EXPECT_EQ(seen.size(), 103u);
      EXPECT_EQ(used, SampleCount::OfEpochs(1, 103));
      EXPECT_EQ(std::set<int>(seen.begin(), seen.end()).size(), 103u);
    }
  }
}

TEST(BatchSource, ShardsAndPiecesAreThePartsOfOneGlobalBatch) {
  const ExamplesPtr part = NumberedRows(50);
  const BatchSource whole(part, {.batch_size = 10, .seed = 5});
  const BatchSource cut(part, {.batch_size = 10, .shards = 4, .seed = 5});
  const BatchSource pieces(part, {.batch_size = 10, .shards = 2, .pieces = 3, .seed = 5});
  for (uint64_t step = 0; step < 10; ++step) {
    const std::vector<float> expected = Features(Filled(whole, step, 0));
    std::vector<float> by_shard, by_piece;
    for (int shard = 0; shard < 4; ++shard) {
      const std::vector<float> x = Features(Filled(cut, step, shard));
      by_shard.insert(by_shard.end(), x.begin(), x.end());
    }
    for (int i = 0; i < 6; ++i) {
      const std::vector<float> x = Features(Filled(pieces, step, i / 3, i % 3));
      by_piece.insert(by_piece.end(), x.begin(), x.end());
    }
    EXPECT_EQ(by_shard, expected);
    EXPECT_EQ(by_piece, expected);
  }
}

TEST(BatchSource, TeacherLogitsFollowTheirRows) {
  std::vector<float> logits(30 * 3);
  std::iota(logits.begin(), logits.end(), 0.0f);
  const BatchSource source(NumberedRows(30),
                           {.batch_size = 8, .shards = 2, .teacher_logits = logits, .outputs = 3});
  const BatchBuffer batch = Filled(source, 2, 1);
  ASSERT_EQ(batch.rows(), 4);
  for (int64_t i = 0; i < batch.rows(); ++i) {
    EXPECT_EQ(batch.teacher_logits[3 * i + 2], 3 * Features(batch)[2 * i] + 2);
  }
}

TEST(BatchSource, ABatchLargerThanTheDataIsTheData) {
  const BatchSource source(NumberedRows(5), {.batch_size = 64, .shards = 8});
  EXPECT_EQ(source.steps_per_epoch(), 1);
  int64_t rows = 0;
  for (int shard = 0; shard < 8; ++shard) rows += Filled(source, 0, shard).rows();
  EXPECT_EQ(rows, 5);
}

}  // namespace
}  // namespace lepton::worker
