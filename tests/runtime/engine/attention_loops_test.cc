// The loops of attention that no kernel has alone: right, and with the same bits for every
// instruction set.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
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

constexpr int64_t kQueries = 32;

// Where element (row, column) of a left side of 32 columns lies, and of a panel.
int64_t TilePlace(int64_t row, int64_t column) {
  return row / 16 * 16 * kQueries + row % 16 * kQueries + column;
}
int64_t PanelPlace(int64_t row, int64_t column) {
  return row / 32 * 32 * kQueries + column / 16 * 16 * kQueries + row % 32 / 2 * kQueries +
         column % 16 * 2 + row % 2;
}

// Whatever it carries: GPUs write 0x7fffffff.
TEST(AttentionLoops, AProbabilityOfNoNumberIsNone) {
  constexpr int64_t kKeys = 6;
  for (const uint32_t bits : {0x7fffffffu, 0xffffffffu, 0x7fc00001u, 0x7fc00000u, 0xffc00000u,
                              0x7fc001ffu, 0x7f800001u}) {
    float no_number;
    std::memcpy(&no_number, &bits, sizeof(bits));
    for (const Loops* loops : AllLoops()) {
      std::vector<float> s(kKeys * kQueries, 0.5f), tops(kQueries, 0.5f), sums(kQueries, 0.0f);
      s[2 * kQueries + 5] = no_number;
      loops->score_exp({kKeys, 1.0f, nullptr, 0, nullptr, nullptr}, tops.data(), s.data(),
                       sums.data(), nullptr);
      for (int64_t i = 0; i < kQueries; ++i) {
        EXPECT_EQ(std::isnan(sums[i]), i == 5) << loops->name << " " << std::hex << bits;
        EXPECT_EQ(std::isnan(s[2 * kQueries + i]), i == 5)
            << loops->name << " " << std::hex << bits;
      }
    }
  }
}

// Odd and even numbers of keys; a bias so large that its size alone would swallow the scores.
TEST(AttentionLoops, ProbabilitiesOfWhatAQuerySees) {
  constexpr int64_t kMost = 34, kFirst = 3;
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  auto scores = RandomTensor({DType::kF32, {kMost, kQueries}}, 1, -40, 40);
  std::vector<float> bias(kMost);
  for (int64_t key = 0; key < kMost; ++key) {
    bias[key] = key % 5 == 1 ? kNone : -1e9f + static_cast<float>(key % 3) * 64;
  }
  std::vector<int32_t> begin(kQueries), end(kQueries);
  for (int32_t i = 0; i < kQueries; ++i) {
    begin[i] = i % 5;
    end[i] = i == 9 ? begin[i] : begin[i] + 1 + i;
  }
  for (const int64_t keys : {kMost, kMost - 1}) {
    for (const bool masked : {false, true}) {
      for (const bool biased : {false, true}) {
        const ScoreBlock block{keys,
                               0.25f,
                               biased ? bias.data() : nullptr,
                               kFirst,
                               masked ? begin.data() : nullptr,
                               masked ? end.data() : nullptr};
        std::vector<float> first;
        for (const Loops* loops : AllLoops()) {
          std::vector<float> s(scores.floats().begin(), scores.floats().end());
          std::vector<float> tops(kQueries, kNone), sums(kQueries, 1.0f);
          loops->score_tops(block, s.data(), tops.data());
          for (float& top : tops) top = top == kNone ? 0 : top;
          const std::vector<float> by_score = s;
          loops->score_exp(block, tops.data(), s.data(), sums.data(), nullptr);
          for (int64_t i = 0; i < kQueries; ++i) {
            double sum = 1;
            for (int64_t key = 0; key < keys; ++key) {
              const double score = double{by_score[key * kQueries + i]} * (biased ? 1 : 0.25);
              const bool seen = !masked || (kFirst + key >= begin[i] && kFirst + key < end[i]);
              const double p = seen ? std::exp(score - tops[i]) : 0;
              // The exponent is rounded to single.
              const double bound = p * (1e-6 + 1e-7 * std::abs(score - tops[i])) + 2e-38;
              ASSERT_NEAR(s[key * kQueries + i], p, p == 0 ? 2e-38 : bound) << loops->name;
              sum += p;
            }
            ASSERT_NEAR(sums[i], sum, 1e-5 * sum) << loops->name;
          }
          std::vector<float> again = by_score, other_sums(kQueries, 1.0f);
          std::vector<uint16_t> pairs(2 * 32 * kQueries, 7);
          loops->score_exp(block, tops.data(), again.data(), other_sums.data(), pairs.data());
          EXPECT_EQ(other_sums, sums) << loops->name;
          for (int64_t key = 0; key < (keys + 1) / 2 * 2; ++key) {
            for (int64_t i = 0; i < kQueries; ++i) {
              const float p = key < keys ? s[key * kQueries + i] : 0.0f;
              ASSERT_EQ(pairs[PanelPlace(key, i)], BF16::FromFloat(p).bits)
                  << loops->name << " key " << key;
            }
          }
          if (first.empty()) first = s;
          EXPECT_EQ(std::memcmp(s.data(), first.data(), 4 * s.size()), 0) << loops->name;
        }
      }
    }
  }
}

TEST(AttentionLoops, SlopesAsTheyAreAndAsSidesOfProducts) {
  constexpr int64_t kMost = 32;
  auto scores = RandomTensor({DType::kF32, {kMost, kQueries}}, 1, -9, 9);
  auto slopes = RandomTensor({DType::kF32, {kMost, kQueries}}, 2, -1, 1);
  auto log_sums = RandomTensor({DType::kF32, {1, kQueries}}, 3, 1, 3);
  auto dots = RandomTensor({DType::kF32, {1, kQueries}}, 4, -1, 1);
  std::vector<float> bias(kMost);
  std::vector<int32_t> begin(kMost), end(kMost);
  for (int32_t key = 0; key < kMost; ++key) {
    bias[key] = static_cast<float>(key % 3) - 1;
    begin[key] = key < 8 ? 0 : key - 4;
    end[key] = key % 7 == 6 ? key : 32;
  }
  for (const int64_t keys : {kMost, kMost - 1}) {
    for (const bool biased : {false, true}) {
      const SlopeBlock block{keys,
                             0.25f,
                             biased ? bias.data() : nullptr,
                             begin.data(),
                             end.data(),
                             log_sums.data.as<float>(),
                             dots.data.as<float>()};
      std::vector<float> first;
      for (const Loops* loops : AllLoops()) {
        std::vector<float> s(scores.floats().begin(), scores.floats().end());
        std::vector<float> dp(slopes.floats().begin(), slopes.floats().end());
        loops->slopes(block, s.data(), dp.data());
        std::vector<uint16_t> p_tiles(kMost * kQueries), ds_tiles(kMost * kQueries),
            ds_pairs(kMost * kQueries);
        loops->slopes_bf16(block, scores.data.as<float>(), slopes.data.as<float>(), p_tiles.data(),
                           ds_tiles.data(), ds_pairs.data());
        for (int64_t key = 0; key < keys; ++key) {
          for (int64_t i = 0; i < kQueries; ++i) {
            const int64_t at = key * kQueries + i;
            const bool seen = i >= begin[key] && i < end[key];
            const double p = seen ? std::exp(double{scores.floats()[at]} * 0.25 +
                                             (biased ? bias[key] : 0) - log_sums.floats()[i])
                                  : 0;
            const double ds = 0.25 * p * (double{slopes.floats()[at]} - dots.floats()[i]);
            ASSERT_NEAR(s[at], p, 1e-6 * p) << loops->name;
            ASSERT_NEAR(dp[at], ds, 1e-6 * p) << loops->name;
            const uint16_t rounded = BF16::FromFloat(dp[at]).bits;
            ASSERT_EQ(p_tiles[TilePlace(key, i)], BF16::FromFloat(s[at]).bits) << loops->name;
            ASSERT_EQ(ds_tiles[TilePlace(key, i)], rounded) << loops->name;
            ASSERT_EQ(ds_pairs[PanelPlace(key, i)], rounded) << loops->name;
          }
        }
        for (int64_t i = 0; keys < kMost && i < kQueries; ++i) {
          ASSERT_EQ(ds_pairs[PanelPlace(keys, i)], 0) << loops->name;
        }
        s.resize(keys * kQueries);
        if (first.empty()) first = s;
        EXPECT_EQ(std::memcmp(s.data(), first.data(), 4 * s.size()), 0) << loops->name;
      }
    }
  }
}

}  // namespace
}  // namespace lepton::kernels::simd
