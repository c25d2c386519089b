// The loops of attention that no kernel has alone: right, and with the same bits for every
// instruction set.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "runtime/kernels/cpu/simd/loops.h"
#include "tests/runtime/engine/op_cases.h"

namespace lepton::kernels::simd {
namespace {

using engine_test::RandomTensor;

std::vector<const Loops*> AllLoops() {
  std::vector<const Loops*> sets = {&BaselineLoops()};
  if (CpuHasAvx2()) sets.push_back(&Avx2Loops());
  if (CpuHasAvx512()) sets.push_back(&Avx512Loops());
  return sets;
}

TEST(AttentionLoops, DotProductsOfRows) {
  constexpr int64_t kRows = 5, kPitch = 70;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    auto a = RandomTensor({dtype, {kRows, kPitch}}, 1, -1, 1);
    auto b = RandomTensor({dtype, {kRows, kPitch}}, 2, -1, 1);
    const auto at = [&](auto& x, int64_t i) {
      return dtype == DType::kF32 ? x.data.template as<float>()[i]
                                  : BF16::ToFloat(x.data.template as<BF16>()[i]);
    };
    for (const int64_t n : {1, 15, 16, 33, 64}) {
      std::vector<float> first;
      for (const Loops* loops : AllLoops()) {
        std::vector<float> y(kRows);
        if (dtype == DType::kF32) {
          loops->dot_rows(kRows, n, a.data.as<float>(), b.data.as<float>(), kPitch, y.data());
        } else {
          loops->dot_rows_bf16(kRows, n, a.data.as<uint16_t>(), b.data.as<uint16_t>(), kPitch,
                               y.data());
        }
        for (int64_t row = 0; row < kRows; ++row) {
          double wanted = 0;
          for (int64_t i = row * kPitch; i < row * kPitch + n; ++i) {
            wanted += double{at(a, i)} * at(b, i);
          }
          EXPECT_NEAR(y[row], wanted, 1e-5) << loops->name << " n " << n << " row " << row;
        }
        if (first.empty()) first = y;
        EXPECT_EQ(y, first) << loops->name << " n " << n;
      }
    }
  }
}

// Queries see different keys of the block, one of them none; with and without a bias.
TEST(AttentionLoops, LargestScoresOfWhatAQuerySees) {
  constexpr int64_t kKeys = 7, kQueries = 32, kFirst = 3;
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  auto scores = RandomTensor({DType::kF32, {kKeys, kQueries}}, 1, -4, 4);
  const float bias[kKeys] = {0, 1, kNone, -2, 3, 0.5f, -1};
  std::vector<int32_t> begin(kQueries), end(kQueries);
  for (int32_t i = 0; i < kQueries; ++i) {
    begin[i] = i % 5;
    end[i] = i == 9 ? begin[i] : begin[i] + 1 + i % 9;
  }
  for (const bool masked : {false, true}) {
    for (const bool biased : {false, true}) {
      const ScoreBlock block{kKeys,
                             0.25f,
                             biased ? bias : nullptr,
                             kFirst,
                             masked ? begin.data() : nullptr,
                             masked ? end.data() : nullptr};
      for (const Loops* loops : AllLoops()) {
        std::vector<float> s(scores.floats().begin(), scores.floats().end());
        std::vector<float> tops(kQueries, kNone);
        tops[4] = 2;  // of the keys before
        loops->score_tops(block, s.data(), tops.data());
        for (int64_t i = 0; i < kQueries; ++i) {
          float wanted = i == 4 ? 2 : kNone;
          for (int64_t key = 0; key < kKeys; ++key) {
            const float score =
                scores.floats()[key * kQueries + i] * 0.25f + (biased ? bias[key] : 0.0f);
            EXPECT_EQ(s[key * kQueries + i], biased ? score : scores.floats()[key * kQueries + i])
                << loops->name;
            const bool seen = !masked || (kFirst + key >= begin[i] && kFirst + key < end[i]);
            if (seen) wanted = std::max(wanted, score);
          }
          EXPECT_EQ(tops[i], wanted) << loops->name << " query " << i << masked << biased;
        }
      }
    }
  }
}

}  // namespace
}  // namespace lepton::kernels::simd
