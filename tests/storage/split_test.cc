#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "storage/datasets/table.h"
#include "tests/storage/status_matchers.h"

namespace lepton::storage {
namespace {

std::vector<int64_t> Together(const Split& split) {
  std::vector<int64_t> all = split.train;
  all.insert(all.end(), split.validation.begin(), split.validation.end());
  all.insert(all.end(), split.test.begin(), split.test.end());
  std::sort(all.begin(), all.end());
  return all;
}

void ExpectAllRowsOnce(const Split& split, int64_t rows) {
  const std::vector<int64_t> all = Together(split);
  ASSERT_EQ(all.size(), static_cast<size_t>(rows));
  for (int64_t row = 0; row < rows; ++row) ASSERT_EQ(all[row], row);
}

std::map<int32_t, int> Count(const std::vector<int64_t>& rows,
                             const std::vector<int32_t>& classes) {
  std::map<int32_t, int> counts;
  for (const int64_t row : rows) ++counts[classes[row]];
  return counts;
}

TEST(SplitRowsTest, EveryRowIsInOnePartAndTheSharesHold) {
  for (const int64_t rows : {10, 100, 1797, 100'000}) {
    const Split split = SplitRows(rows, 0.8, 0.1, 7).value();
    ExpectAllRowsOnce(split, rows);
    EXPECT_NEAR(static_cast<double>(split.train.size()), 0.8 * rows, 1.01) << rows;
    EXPECT_NEAR(static_cast<double>(split.validation.size()), 0.1 * rows, 1.01) << rows;
    EXPECT_FALSE(split.test.empty());
  }
}

// Written down once, so that a split of old never changes under a job that refers to it.
TEST(SplitRowsTest, TheSeedAloneDecides) {
  const Split split = SplitRows(12, 0.5, 0.25, 42).value();
  EXPECT_THAT(split.train, testing::ElementsAre(9, 7, 11, 5, 4, 10));
  EXPECT_EQ(SplitRows(12, 0.5, 0.25, 42).value().test, split.test);
  EXPECT_NE(SplitRows(1000, 0.5, 0.25, 43).value().train,
            SplitRows(1000, 0.5, 0.25, 42).value().train);
}

TEST(SplitRowsTest, APartWithoutAShareIsEmpty) {
  Split split = SplitRows(10, 1, 0, 1).value();
  EXPECT_EQ(split.train.size(), 10u);
  split = SplitRows(10, 0.8, 0.2, 1).value();  // 1 - 0.8 - 0.2 is not 0 in floating point
  EXPECT_TRUE(split.test.empty());
  ExpectAllRowsOnce(split, 10);
  split = SplitRows(10, 0, 0, 1).value();
  EXPECT_EQ(split.test.size(), 10u);
}

TEST(SplitRowsTest, NoPartWithAShareIsEmptyHoweverSmall) {
  const Split split = SplitRows(50, 0.998, 0.001, 5).value();
  ExpectAllRowsOnce(split, 50);
  EXPECT_EQ(split.validation.size(), 1u);
  EXPECT_EQ(split.test.size(), 1u);
}

TEST(SplitRowsTest, EachClassIsSpreadByTheShares) {
  std::vector<int32_t> classes;
  for (int i = 0; i < 1000; ++i) classes.push_back(i < 900 ? 0 : i < 990 ? 1 : 2);
  const Split split = SplitRows(1000, 0.7, 0.2, 3, &classes).value();
  ExpectAllRowsOnce(split, 1000);
  EXPECT_EQ(Count(split.train, classes), (std::map<int32_t, int>{{0, 630}, {1, 63}, {2, 7}}));
  EXPECT_EQ(Count(split.validation, classes), (std::map<int32_t, int>{{0, 180}, {1, 18}, {2, 2}}));
  EXPECT_EQ(Count(split.test, classes), (std::map<int32_t, int>{{0, 90}, {1, 9}, {2, 1}}));
}

TEST(SplitRowsTest, AClassOfThreeRowsReachesEveryPartAndOneOfTwoReachesTrain) {
  std::vector<int32_t> classes(100, 0);
  classes[10] = classes[20] = classes[30] = 1;
  classes[40] = classes[50] = 2;
  classes[60] = -1;  // a missing label
  const Split split = SplitRows(100, 0.8, 0.1, 3, &classes).value();
  ExpectAllRowsOnce(split, 100);
  EXPECT_EQ(Count(split.train, classes)[1], 1);
  EXPECT_EQ(Count(split.validation, classes)[1], 1);
  EXPECT_EQ(Count(split.test, classes)[1], 1);
  EXPECT_GE(Count(split.train, classes)[2], 1);
  EXPECT_EQ(Count(split.train, classes)[-1], 1);
}

TEST(SplitRowsTest, RowsThatAreAllOfDifferentClassesStillFillEveryPart) {
  std::vector<int32_t> classes;
  for (int i = 0; i < 40; ++i) classes.push_back(i);
  const Split split = SplitRows(40, 0.8, 0.1, 3, &classes).value();
  ExpectAllRowsOnce(split, 40);
  EXPECT_FALSE(split.validation.empty());
  EXPECT_FALSE(split.test.empty());
}

TEST(SplitRowsTest, ManySmallClassesKeepTheTotals) {
  std::vector<int32_t> classes;
  for (int i = 0; i < 700; ++i) classes.push_back(i / 7);
  const Split split = SplitRows(700, 0.7, 0.15, 11, &classes).value();
  ExpectAllRowsOnce(split, 700);
  EXPECT_NEAR(static_cast<double>(split.train.size()), 490, 5);
  EXPECT_NEAR(static_cast<double>(split.validation.size()), 105, 5);
}

TEST(SplitRowsTest, ImpossibleSplitsAreRefused) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(SplitRows(10, -0.1, 0.1, 0), Fails(StatusCode::kInvalidArgument, "split.train"));
  EXPECT_THAT(SplitRows(10, nan, 0.1, 0), Fails(StatusCode::kInvalidArgument, "split.train"));
  EXPECT_THAT(SplitRows(10, 0.5, 1.5, 0), Fails(StatusCode::kInvalidArgument, "split.validation"));
  EXPECT_THAT(SplitRows(10, 0.8, 0.3, 0), Fails(StatusCode::kInvalidArgument, "more than 1"));
  EXPECT_THAT(SplitRows(2, 0.8, 0.1, 0),
              Fails(StatusCode::kInvalidArgument, "2 rows cannot fill 3"));
  EXPECT_THAT(SplitRows(0, 1, 0, 0), Fails(StatusCode::kInvalidArgument, "0 rows"));
  const std::vector<int32_t> classes(9);
  EXPECT_THAT(SplitRows(10, 0.8, 0.1, 0, &classes),
              Fails(StatusCode::kInvalidArgument, "9 classes"));
}

}  // namespace
}  // namespace lepton::storage
