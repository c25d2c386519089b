// The loops of each instruction set against the baseline's, bit for bit, and against exact
// functions.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numbers>

#include "runtime/kernels/cpu/simd/loops.h"
#include "runtime/tensor/counter_random.h"
#include "tests/runtime/engine/op_cases.h"

namespace lepton::engine_test {
namespace {

std::vector<const kernels::simd::Loops*> LoopSets() {
  std::vector<const kernels::simd::Loops*> sets = {&kernels::simd::BaselineLoops()};
  if (kernels::simd::CpuHasAvx2()) sets.push_back(&kernels::simd::Avx2Loops());
  if (kernels::simd::CpuHasAvx512()) sets.push_back(&kernels::simd::Avx512Loops());
  return sets;
}

// With an instruction for it or without, in every place that rounds: normal numbers as BF16 does,
// denormal ones to 0.
TEST(VectorKernels, RoundToBf16BitForBit) {
  std::vector<float> x;
  for (uint32_t high = 0; high < 0x10000; ++high) {
    for (const uint32_t low : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      x.push_back(std::bit_cast<float>(high << 16 | low));
    }
  }
  x.resize(x.size() + 13, 1.0f);  // a last part that fills no vector
  const auto count = static_cast<int64_t>(x.size());
  for (const kernels::simd::Loops* loops : LoopSets()) {
    std::vector<uint16_t> halves(count), rows(count);
    std::vector<float> rounded(count);
    loops->to_bf16(count, x.data(), halves.data());
    loops->to_bf16_rows(count / 45, 45, x.data(), 45, rows.data(), 45);
    loops->round_bf16(count, x.data(), rounded.data());
    for (int64_t i = 0; i < count; ++i) {
      const auto word = std::bit_cast<uint32_t>(x[i]);
      const bool denormal = (word & 0x7f800000u) == 0;
      const uint16_t wanted = denormal ? word >> 16 & 0x8000u : BF16::FromFloat(x[i]).bits;
      ASSERT_EQ(halves[i], wanted) << loops->name << " " << std::hex << word;
      ASSERT_EQ(std::bit_cast<uint32_t>(rounded[i]), uint32_t{wanted} << 16) << loops->name;
      if (i < count / 45 * 45) {
        ASSERT_EQ(rows[i], wanted) << loops->name << " " << std::hex << word;
      }
    }
  }
}

// Whose pixels come in stretches of 16 and of fewer; results as wide as they may be.
TEST(VectorKernels, TilesOfBf16AreTransformedBitForBit) {
  using Turned = kernels::simd::TurnedTiles;
  constexpr int64_t kPlaces = 150, kPlane = 60, kChannels = 64, kNumbers = 64 * 32;
  std::vector<Turned::Stretch> stretches = {{3, 16, {}}, {20, 16, {}}, {41, 7, {}}};
  std::vector<int32_t> zeros, tiles;
  std::vector<bool> filled(kPlaces);
  for (Turned::Stretch& stretch : stretches) {
    for (int32_t i = 0; i < stretch.count; ++i) {
      stretch.to[i] = static_cast<int32_t>((stretch.from + i) * 7 % kPlaces);
      filled[stretch.to[i]] = true;
    }
  }
  for (int32_t place = 0; place < kPlaces; ++place) {
    if (!filled[place]) zeros.push_back(place);
  }
  for (int32_t tile = 0; tile < 32; ++tile) tiles.push_back(tile * 3);
  const Turned turned{stretches.data(), 3,  zeros.data(), static_cast<int64_t>(zeros.size()),
                      tiles.data(),     10, kPlaces};
  HostTensor x = RandomTensor({DType::kBF16, {kChannels, kPlane}}, 1, -1, 1);
  HostTensor m = RandomTensor({DType::kF32, {16, 32, 32}}, 2, -1, 1);
  std::vector<int32_t> places(64);
  for (int32_t i = 0; i < 64; ++i) places[i] = 2 * i;
  using Halves = std::vector<uint16_t>;
  std::vector<Halves> first;
  int sets = 0;
  for (const kernels::simd::Loops* loops : LoopSets()) {
    const auto* numbers = x.data.as<uint16_t>();
    // What memory held does not matter.
    std::vector<float> room(kPlaces * 32, static_cast<float>(++sets)), pixels(128 * 32);
    std::vector<Halves> got;
    for (const int64_t channels : {32, 64}) {
      got.emplace_back(16 * kNumbers);
      loops->turned_tiles.to_blocks(turned, channels, numbers, kPlane, room.data(),
                                    got.back().data(), kNumbers);
    }
    for (const auto to_panel :
         {loops->turned_tiles.inputs_to_panel, loops->turned_tiles.gradients_to_panel}) {
      for (const int64_t channels : {32, 5}) {
        got.emplace_back(16 * kNumbers);
        to_panel(turned, channels, numbers, kPlane, room.data(), got.back().data(), kNumbers);
      }
    }
    loops->turned_tiles.to_pixels(32, m.data.as<float>(), 32 * 32, places.data(), pixels.data());
    for (const int64_t count : {128, 37}) {
      got.emplace_back(32 * 128);
      loops->turned_tiles.pixels_to_bf16(count, count == 37 ? 29 : 32, pixels.data(),
                                         got.back().data(), 128);
    }
    std::vector<float> taps(32 * 9 * 16);
    loops->turned_tiles.channels_of_taps(32 * 9, m.data.as<float>(), 700, taps.data());
    EXPECT_EQ(taps[200 * 16 + 3], m.data.as<float>()[3 * 700 + 200]) << loops->name;
    for (const int64_t pitch : {16, -16}) {
      got.emplace_back(16 * kNumbers);
      loops->turned_tiles.weights_to_panel(32, taps.data() + (pitch < 0 ? 8 * 16 : 0), pitch,
                                           got.back().data(), kNumbers);
    }
    if (first.empty()) first = got;
    for (size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i], first[i]) << loops->name << " " << i;
  }
}

// The pieces meet, and end: from beyond the last on both sides.
TEST(VectorKernels, GeluAndItsGradientAreExactToSingle) {
  constexpr double kPi = std::numbers::pi;
  std::vector<float> x;
  for (int i = -90'003; i <= 90'000; ++i) x.push_back(static_cast<float>(i) * 1e-4f);
  for (const float far : {-1e30f, -100.0f, 100.0f, 1e30f}) x.push_back(far);
  const auto count = static_cast<int64_t>(x.size());
  const std::vector<float> ones(count, 1.0f);
  std::vector<float> y(count), dx(count), tanh_y(count), tanh_dx(count);
  for (const kernels::simd::Loops* loops : LoopSets()) {
    loops->gelu(count, x.data(), y.data());
    loops->gelu_grad(count, x.data(), ones.data(), dx.data());
    loops->gelu_tanh(count, x.data(), tanh_y.data());
    loops->gelu_tanh_grad(count, x.data(), ones.data(), tanh_dx.data());
    for (int64_t i = 0; i < count; ++i) {
      const double a = x[i], bound = 1e-7 * std::max(4.0, std::abs(a) * 2);
      const double cdf = 0.5 * std::erfc(-a / std::sqrt(2.0));
      ASSERT_NEAR(y[i], a * cdf, bound) << loops->name << " " << a;
      const double density = std::exp(-a * a / 2) / std::sqrt(2 * kPi);
      ASSERT_NEAR(dx[i], cdf + a * density, 3e-7) << loops->name << " " << a;
      const double size = std::min(std::abs(a), 50.0), c = 2 * std::sqrt(2 / kPi);
      const double u = std::copysign(c * (size + 0.044715 * size * size * size), a);
      const double s = 1 / (1 + std::exp(-u)), slope = c * (1 + 3 * 0.044715 * size * size);
      ASSERT_NEAR(tanh_y[i], a * s, bound) << loops->name << " " << a;
      ASSERT_NEAR(tanh_dx[i], s + std::copysign(size, a) * s * (1 - s) * slope, 3e-7)
          << loops->name << " " << a;
    }
  }
}

// At once, as a product's followers run them, or one after the other; rows that fill vectors, and
// such that do not.
TEST(VectorKernels, GeluWithWhatSurroundsItHasTheSameBits) {
  constexpr int64_t kRows = 3, kPitch = 80, kTo = 90;
  auto x = RandomTensor(F32({kRows, kPitch}), 1, -9, 9);
  auto bias = RandomTensor(F32({kPitch}), 2, -1, 1);
  std::vector<std::vector<uint16_t>> first;
  for (const kernels::simd::Loops* loops : LoopSets()) {
    std::vector<std::vector<uint16_t>> all;
    for (const bool tanh : {false, true}) {
      for (const int64_t columns : {32, 45, 7, 80}) {
        for (const bool biased : {false, true}) {
          std::vector<uint16_t> before(kRows * kTo, 1), y(kRows * kTo, 1), dx(kRows * kTo, 1);
          (tanh ? loops->gelu_tanh_rows : loops->gelu_rows)(
              kRows, columns, x.data.as<float>(), kPitch, biased ? bias.data.as<float>() : nullptr,
              before.data(), y.data(), kTo);
          (tanh ? loops->gelu_tanh_grad_rows : loops->gelu_grad_rows)(
              kRows, columns, before.data(), kTo, x.data.as<float>(), kPitch, dx.data());
          std::vector<uint16_t> alone(kRows * kTo, 1);
          (tanh ? loops->gelu_tanh_rows : loops->gelu_rows)(
              kRows, columns, x.data.as<float>(), kPitch, biased ? bias.data.as<float>() : nullptr,
              nullptr, alone.data(), kTo);
          EXPECT_EQ(alone, y) << loops->name;
          for (int64_t row = 0; row < kRows; ++row) {
            std::vector<float> sum(columns), gelu(columns), slope(columns);
            const float* from = x.data.as<float>() + row * kPitch;
            for (int64_t i = 0; i < columns; ++i) {
              sum[i] = biased ? from[i] + bias.floats()[i] : from[i];
            }
            loops->round_bf16(columns, sum.data(), sum.data());
            (tanh ? loops->gelu_tanh : loops->gelu)(columns, sum.data(), gelu.data());
            (tanh ? loops->gelu_tanh_grad : loops->gelu_grad)(columns, sum.data(), from,
                                                              slope.data());
            std::vector<uint16_t> wanted(columns);
            const auto expect = [&](const std::vector<float>& values, const uint16_t* got) {
              loops->to_bf16(columns, values.data(), wanted.data());
              EXPECT_EQ(std::memcmp(got, wanted.data(), 2 * columns), 0) << loops->name << columns;
            };
            expect(sum, before.data() + row * kTo);
            expect(gelu, y.data() + row * kTo);
            expect(slope, dx.data() + row * kTo);
            for (const auto& to : {before, y, dx}) {
              EXPECT_EQ(to[row * kTo + columns], 1) << loops->name << columns;
            }
          }
          all.insert(all.end(), {before, y, dx});
        }
      }
    }
    if (first.empty()) first = all;
    EXPECT_EQ(all, first) << loops->name;
  }
}

TEST(VectorKernels, ANormalisedRowHasTheSameBitsInAnyCompany) {
  constexpr int64_t kRows = 7, kColumns = 45;
  auto x = RandomTensor(F32({kRows, kColumns}), 1, -9, 9);
  auto gain = RandomTensor(F32({kColumns}), 2, -1, 1);
  std::vector<float> first;
  for (const kernels::simd::Loops* loops : LoopSets()) {
    std::vector<float> y(kRows * kColumns), alone(kColumns), mean(kRows), rstd(kRows);
    loops->layer_norm(kRows, kColumns, 1e-5f, x.data.as<float>(), gain.data.as<float>(),
                      gain.data.as<float>(), y.data(), mean.data(), rstd.data());
    for (int64_t row = 0; row < kRows; ++row) {
      float one_mean = 0, one_rstd = 0;
      loops->layer_norm(1, kColumns, 1e-5f, x.data.as<float>() + row * kColumns,
                        gain.data.as<float>(), gain.data.as<float>(), alone.data(), &one_mean,
                        &one_rstd);
      EXPECT_EQ(std::memcmp(alone.data(), y.data() + row * kColumns, 4 * kColumns), 0);
      EXPECT_EQ(one_mean, mean[row]);
      EXPECT_EQ(one_rstd, rstd[row]);
    }
    if (first.empty()) first = y;
    EXPECT_EQ(y, first) << loops->name;
  }
}

// Whatever the vector width, and where a fill begins or ends: each number follows from its place.
TEST(VectorKernels, RandomFillsAreTheNumbersOfTheirKey) {
  const RandomKey key{77, 5, (uint64_t{3} << 32) + 9, 2};
  constexpr int64_t kCount = 70'003;
  std::vector<float> first;
  for (const kernels::simd::Loops* loops : LoopSets()) {
    std::vector<float> uniform(kCount), normal(kCount), part(17);
    loops->uniform(0, kCount, key, 0.5f, uniform.data());
    loops->normal(0, kCount, key, 2.5, normal.data());
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < kCount; i += 2) {
      const auto bits = RandomBlock(key, static_cast<uint32_t>(i / 4));
      const uint32_t a = bits[i % 4], b = bits[i % 4 + 1];
      ASSERT_EQ(uniform[i], (2 * UniformFromBits(a) - 1) * 0.5f) << loops->name << " " << i;
      const double radius = std::sqrt(-2 * std::log((a + 0.5) / 4294967296.0));
      const double angle = 2 * std::numbers::pi * (b / 4294967296.0);
      ASSERT_NEAR(normal[i], 2.5 * radius * std::cos(angle), 1e-6) << loops->name << " " << i;
      if (i + 1 < kCount) {
        ASSERT_NEAR(normal[i + 1], 2.5 * radius * std::sin(angle), 1e-6) << loops->name << " " << i;
      }
      sum += normal[i];
      squares += double{normal[i]} * normal[i];
    }
    EXPECT_NEAR(sum / (kCount / 2), 0, 0.05);
    EXPECT_NEAR(std::sqrt(squares / (kCount / 2)), 2.5, 0.05);
    loops->normal(5, 17, key, 2.5, part.data());
    EXPECT_EQ(std::memcmp(part.data(), normal.data() + 20, sizeof(float) * 17), 0);
    if (first.empty()) first = normal;
    EXPECT_EQ(std::memcmp(first.data(), normal.data(), sizeof(float) * kCount), 0) << loops->name;
  }
}

// The published vectors of Philox 4x32-10 (Random123's kat_vectors): counter and key all zero.
TEST(CounterRandom, EqualsThePublishedVector) {
  EXPECT_THAT(RandomBlock({0, 0, 0, 0}, 0),
              testing::ElementsAre(0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u));
}

}  // namespace
}  // namespace lepton::engine_test
