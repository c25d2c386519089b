// The products of gemm.h: right for any layout, and the same bits for any micro-kernel, number of
// rows and place.
#include "runtime/kernels/cpu/gemm/gemm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <span>
#include <vector>

#include "runtime/kernels/cpu/gemm/micro.h"
#include "runtime/tensor/buffer.h"
#include "tests/runtime/engine/op_cases.h"

namespace lepton::kernels::gemm {
namespace {

using engine_test::HostTensor;
using engine_test::RandomTensor;

struct Extents {
  int64_t rows, columns, inner;
};
constexpr Extents kExtents[] = {{1, 1, 1},      {3, 5, 7},     {32, 32, 32}, {33, 65, 100},
                                {100, 70, 600}, {5, 40, 1030}, {17, 33, 64}, {300, 96, 530}};

// A matrix [rows, columns] that lies row by row, or column by column.
struct Matrix {
  Matrix(int64_t rows, int64_t columns, DType dtype, bool turned, uint64_t seed)
      : tensor(RandomTensor({dtype, {rows, columns}}, seed, -1, 1)),
        source{dtype, turned ? 1 : columns, turned ? rows : 1} {}

  // As the product of type `product` sees it.
  double At(int64_t i, int64_t j, DType product) const {
    const int64_t at = i * source.row_stride + j * source.column_stride;
    if (source.dtype == DType::kBF16) return BF16::ToFloat(tensor.data.as<BF16>()[at]);
    const float value = tensor.data.as<float>()[at];
    return product == DType::kBF16 ? BF16::ToFloat(BF16::FromFloat(value)) : value;
  }

  mutable HostTensor tensor;
  Source source;
};

std::vector<float> Multiply(const Extents& e, const Matrix& a, const Matrix& b,
                            const Micro& micro) {
  const Product product(e.rows, e.columns, e.inner, a.source, b.source, micro);
  Buffer packed(product.packed_bytes());
  product.PackRight(b.tensor.data.data(), packed.data());
  std::vector<float> c(e.rows * e.columns);
  product.Run(a.tensor.data.data(), packed.data(), StoreFinisher(c.data(), DType::kF32, e.columns));
  return c;
}

bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), 4 * a.size()) == 0;
}

struct Layout : testing::TestWithParam<std::tuple<DType, bool, bool, bool, bool>> {};

TEST_P(Layout, EveryMicroKernelIsRightAndThoseOfOneKindAgreeBitByBit) {
  const auto& [dtype, bf16_a, bf16_b, turned_a, turned_b] = GetParam();
  const MicroList f32[] = {F32Micros()};
  const MicroList bf16[] = {Bf16Micros(Bf16Sums::kTiles), Bf16Micros(Bf16Sums::kPairs)};
  for (const Extents& e : kExtents) {
    const Matrix a(e.rows, e.inner, bf16_a ? DType::kBF16 : DType::kF32, turned_a, 1);
    const Matrix b(e.inner, e.columns, bf16_b ? DType::kBF16 : DType::kF32, turned_b, 2);
    for (const MicroList& list : dtype == DType::kBF16 ? std::span<const MicroList>(bf16) : f32) {
      std::vector<float> first;
      for (int m = 0; m < list.count; ++m) {
        const Micro& micro = *list.micros[m];
        const std::vector<float> c = Multiply(e, a, b, micro);
        for (int64_t i = 0; i < e.rows; ++i) {
          for (int64_t j = 0; j < e.columns; ++j) {
            double sum = 0;
            for (int64_t k = 0; k < e.inner; ++k) sum += a.At(i, k, dtype) * b.At(k, j, dtype);
            ASSERT_NEAR(c[i * e.columns + j], sum, 1e-6 * static_cast<double>(e.inner) + 1e-6)
                << micro.name << " " << e.rows << "x" << e.columns << "x" << e.inner << " at " << i
                << ", " << j;
          }
        }
        if (m == 0) first = c;
        // Without fused multiply-add, f32 rounds twice.
        const bool fused = dtype == DType::kBF16 || std::strcmp(micro.name, "baseline") != 0;
        if (fused) {
          EXPECT_TRUE(SameBits(c, first)) << micro.name << " against " << list.micros[0]->name;
        }
      }
    }
  }
}

// Written out as bf16_sums.h says it.
TEST(Product, OfBf16AddsInTheOrderThatItIsToldTo) {
  const Extents e{5, 40, 70};
  const Matrix a(e.rows, e.inner, DType::kBF16, false, 1);
  const Matrix b(e.inner, e.columns, DType::kBF16, false, 2);
  std::vector<float> tiles(e.rows * e.columns), pairs(tiles.size());
  for (int64_t at = 0; at < e.rows * e.columns; ++at) {
    const int64_t i = at / e.columns, j = at % e.columns;
    const auto product = [&](int64_t k) {
      return k < e.inner ? static_cast<float>(a.At(i, k, DType::kBF16) * b.At(k, j, DType::kBF16))
                         : 0.0f;
    };
    for (int64_t step = 0; step < e.inner; step += 32) {
      float even = 0, odd = 0;
      for (int64_t k = step; k < step + 32; k += 2) {
        pairs[at] = pairs[at] + product(k + 1);
        pairs[at] = pairs[at] + product(k);
        even = even + product(k);
        odd = odd + product(k + 1);
      }
      tiles[at] = tiles[at] + (even + odd);
    }
  }
  EXPECT_FALSE(SameBits(tiles, pairs));
  EXPECT_TRUE(SameBits(Multiply(e, a, b, *Bf16Micros(Bf16Sums::kTiles).micros[0]), tiles));
  EXPECT_TRUE(SameBits(Multiply(e, a, b, *Bf16Micros(Bf16Sums::kPairs).micros[0]), pairs));
}

INSTANTIATE_TEST_SUITE_P(All, Layout,
                         testing::Combine(testing::Values(DType::kF32, DType::kBF16),
                                          testing::Bool(), testing::Bool(), testing::Bool(),
                                          testing::Bool()));

// What makes serving independent of what else is in the batch, without padding it.
TEST(Product, ARowHasTheSameBitsInAnyNumberOfRows) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Matrix b(530, 70, dtype, false, 2);
    const Matrix all(300, 530, dtype, false, 1);
    const Product whole(300, 70, 530, dtype, all.source, b.source);
    Buffer packed(whole.packed_bytes());
    whole.PackRight(b.tensor.data.data(), packed.data());
    std::vector<float> c(300 * 70);
    whole.Run(all.tensor.data.data(), packed.data(), StoreFinisher(c.data(), DType::kF32, 70));
    const size_t row_bytes = 530 * DTypeSize(dtype);
    for (const int64_t rows : {1, 2, 4, 5, 13, 16, 17, 33, 100}) {
      for (const int64_t first : {int64_t{0}, int64_t{7}, 300 - rows}) {
        const Product part(rows, 70, 530, dtype, all.source, b.source);
        std::vector<float> alone(rows * 70);
        part.Run(all.tensor.data.as<char>() + first * row_bytes, packed.data(),
                 StoreFinisher(alone.data(), DType::kF32, 70));
        const std::vector<float> wanted(c.begin() + first * 70, c.begin() + (first + rows) * 70);
        EXPECT_TRUE(SameBits(alone, wanted)) << rows << " rows from " << first;
      }
    }
  }
}

// Sums of integers have one value: whatever the instruction set, the layout of the left side's rows
// (whole blocks are read where they lie) or the length of the sum.
TEST(Product, OfIntegersIsExactWithEveryMicroKernel) {
  const MicroList list = Int8Micros();
  for (const Extents& e : kExtents) {
    const int64_t pitch = (e.inner + 63) / 64 * 64;
    std::vector<int8_t> a(e.rows * pitch), b(e.columns * pitch);
    for (int64_t i = 0; i < e.rows * pitch; ++i) {
      if (i % pitch < e.inner) a[i] = static_cast<int8_t>(i * 37 % 255 - 127);
    }
    for (int64_t i = 0; i < e.columns * pitch; ++i) {
      if (i % pitch < e.inner) b[i] = static_cast<int8_t>(i * 101 % 255 - 127);
    }
    for (const int64_t inner : {e.inner, pitch}) {
      for (int m = 0; m < list.count; ++m) {
        const Product product(e.rows, e.columns, inner, {DType::kI8, pitch, 1},
                              {DType::kI8, 1, pitch}, *list.micros[m]);
        Buffer packed(product.packed_bytes());
        product.PackRight(b.data(), packed.data());
        std::vector<float> c(e.rows * e.columns);
        product.Run(a.data(), packed.data(), StoreFinisher(c.data(), DType::kF32, e.columns));
        for (int64_t i = 0; i < e.rows * e.columns; ++i) {
          int32_t sum = 0, got;
          for (int64_t k = 0; k < e.inner; ++k) {
            sum += a[i / e.columns * pitch + k] * b[i % e.columns * pitch + k];
          }
          std::memcpy(&got, &c[i], sizeof(got));
          ASSERT_EQ(got, sum) << list.micros[m]->name << " " << e.rows << "x" << e.columns << "x"
                              << inner << " at " << i;
        }
      }
    }
  }
}

TEST(Product, NanStaysInItsRow) {
  Matrix a(40, 64, DType::kBF16, false, 1);
  const Matrix b(64, 48, DType::kBF16, false, 2);
  const std::vector<float> clean = Multiply({40, 48, 64}, a, b, Bf16Micro());
  a.tensor.data.as<BF16>()[3 * 64 + 5] = BF16::FromFloat(std::nanf(""));
  const std::vector<float> dirty = Multiply({40, 48, 64}, a, b, Bf16Micro());
  for (int64_t i = 0; i < 40; ++i) {
    for (int64_t j = 0; j < 48; ++j) {
      const float value = dirty[i * 48 + j];
      if (i == 3) {
        EXPECT_TRUE(std::isnan(value));
      } else {
        EXPECT_EQ(value, clean[i * 48 + j]);
      }
    }
  }
}

// Long sums over several groups of panels, whose left side is packed once for all or for each.
TEST(Product, AWholeLeftSideChangesNoBit) {
  const Extents e{100, 2700, 800};
  const Matrix a(e.rows, e.inner, DType::kBF16, true, 1);
  const Matrix b(e.inner, e.columns, DType::kBF16, false, 2);
  for (int i = 0; i < 2; ++i) {
    const MicroList micros = Bf16Micros(i == 0 ? Bf16Sums::kTiles : Bf16Sums::kPairs);
    const Micro& micro = *micros.micros[0];
    const Product product(e.rows, e.columns, e.inner, a.source, b.source, micro);
    Buffer packed(product.packed_bytes()), left(product.left_bytes());
    ASSERT_GT(left.size(), 0u) << micro.name;
    product.PackRight(b.tensor.data.data(), packed.data());
    std::vector<float> once(e.rows * e.columns), anew(once.size());
    const auto run = [&](std::vector<float>& c, void* memory) {
      product.Run(a.tensor.data.data(), packed.data(),
                  StoreFinisher(c.data(), DType::kF32, e.columns), memory);
    };
    run(once, left.data());
    run(anew, nullptr);
    EXPECT_TRUE(SameBits(once, anew)) << micro.name;
  }
}

// As gradients of weights are computed whose right side is the larger one.
TEST(Product, OfTurnedMatricesHasTheSameBits) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const Extents& e : {Extents{33, 70, 600}, Extents{384, 1200, 1000}}) {
      const Matrix a(e.rows, e.inner, dtype, true, 1), b(e.inner, e.columns, dtype, false, 2);
      const Product plain(e.rows, e.columns, e.inner, dtype, a.source, b.source);
      Buffer packed(plain.packed_bytes());
      plain.PackRight(b.tensor.data.data(), packed.data());
      std::vector<float> wanted(e.rows * e.columns), got(wanted.size());
      plain.Run(a.tensor.data.data(), packed.data(),
                StoreFinisher(wanted.data(), DType::kF32, e.columns));
      const auto turned = [](const Source& source) {
        return Source{source.dtype, source.column_stride, source.row_stride};
      };
      const Product product(e.columns, e.rows, e.inner, dtype, turned(b.source), turned(a.source));
      Buffer turned_packed(product.packed_bytes());
      product.PackRight(a.tensor.data.data(), turned_packed.data());
      product.Run(b.tensor.data.data(), turned_packed.data(),
                  TurnedStoreFinisher(got.data(), e.columns, dtype));
      EXPECT_TRUE(SameBits(got, wanted)) << e.rows << " x " << e.columns;
    }
  }
}

// The left side as a block and as a panel.
TEST(Product, OfTwoPanelsHasTheSameBits) {
  constexpr int64_t kRows = kPanelColumns;
  const MicroList micros = Bf16Micros(Bf16Sums::kPairs);
  for (const int64_t inner : {32, 96, 256}) {
    const Matrix a(kRows, inner, DType::kBF16, false, 1);
    const Matrix b(inner, kPanelColumns, DType::kBF16, false, 2);
    for (int m = 0; m < micros.count; ++m) {
      const Micro& micro = *micros.micros[m];
      ASSERT_EQ(micro.block_rows, kRows);
      ASSERT_NE(micro.multiply_panels, nullptr) << micro.name;
      std::vector<uint16_t> block(kRows * inner), left(block.size()), right(block.size());
      const void* rows = a.tensor.data.data();
      micro.pack_blocks({rows, a.source, 0, kRows, inner, inner}, block.data());
      micro.pack_panels({rows, {DType::kBF16, 1, inner}, 0, kRows, inner, inner}, left.data());
      micro.pack_panels({b.tensor.data.data(), b.source, 0, kPanelColumns, inner, inner},
                        right.data());
      std::vector<float> wanted(kRows * kPanelColumns, 0.5f), got = wanted;
      for (const bool add : {true, false, true}) {
        micro.multiply(kRows, inner, block.data(), right.data(), wanted.data(), add);
        micro.multiply_panels(inner, left.data(), right.data(), got.data(), add);
        EXPECT_TRUE(SameBits(got, wanted)) << micro.name << " " << inner << " " << add;
      }
    }
  }
}

}  // namespace
}  // namespace lepton::kernels::gemm
