// What serving and batch jobs rely on: an answer has the same bits whatever else is computed with
// it, of every kind of model and in every precision.
#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <tuple>

#include "tests/runtime/nn/small_models.h"

namespace lepton::nn {
namespace {

using KindAndPrecision = std::tuple<const char*, const char*>;
class RowBits : public testing::TestWithParam<KindAndPrecision> {};

TEST_P(RowBits, AreTheSameAloneAndInAnyBatch) {
  const auto& [kind, precision] = GetParam();
  const SmallModel small = MakeSmallModel(kind, LEPTON_SOURCE_DIR);
  const auto program = small.Answers(precision);
  constexpr int64_t kRows = 23;
  RandomRows rows(small, kRows, 1);
  const auto answers = [&](int64_t first, int64_t count) {
    const Batch batch = rows.Some(first, count);
    std::vector<float> logits(Predictions(small.signature, batch) * small.signature.outputs);
    const Status status = program->Forward(batch, logits);
    EXPECT_TRUE(status.ok()) << status.ToString();
    return logits;
  };
  std::vector<std::vector<float>> alone;
  for (int64_t row = 0; row < kRows; ++row) {
    alone.push_back(answers(row, 1));
    EXPECT_TRUE(std::isfinite(alone.back().front()));
  }
  EXPECT_EQ(std::set(alone.begin(), alone.end()).size(), alone.size()) << "rows have one answer";
  const size_t size = alone.front().size();
  // In blocks of several sizes (row_blocks.h), each at another place.
  for (const auto& [first, count] : {std::pair{0, 23}, {5, 16}, {2, 8}, {17, 5}, {9, 2}}) {
    const std::vector<float> together = answers(first, count);
    for (int64_t i = 0; i < count; ++i) {
      EXPECT_TRUE(SameBits(std::span(together).subspan(i * size, size), alone[first + i]))
          << "row " << i << " of " << count;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, RowBits,
                         testing::Combine(testing::ValuesIn(kModelKinds),
                                          testing::Values("f32", "bf16", "int8")),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) + "_" +
                                  std::get<1>(info.param);
                         });

}  // namespace
}  // namespace lepton::nn
