// What is asked of cuBLASLt, seen by a stand-in that holds us to its header (fake_cublaslt.h): no
// GPU is needed. What the real one makes of it only a GPU can show.
#include "runtime/kernels/cuda/cublaslt_products.h"

#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/kernels/cuda/products.h"
#include "tests/runtime/cuda/fake_cublaslt.h"

namespace lepton::kernels::cuda {
namespace {

using ::testing::HasSubstr;

// Of cublasLtReductionScheme_t.
constexpr uint32_t kInComputeType = 2, kInPlace = 1, kInOutputType = 4;

class CublasLtProducts : public ::testing::Test {
 protected:
  void SetUp() override {
    auto made = MakeCublasLtProducts(Stream{nullptr}, failed);
    ASSERT_TRUE(made.ok()) << made.status().ToString();
    products = *std::move(made);
    void* const library = ::dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_NOLOAD);
    ASSERT_NE(library, nullptr) << ::dlerror();
    auto* const find = reinterpret_cast<cuda_test::FakeCublasLtState*>(
        ::dlsym(library, cuda_test::kFakeCublasLtState));
    ASSERT_NE(find, nullptr) << "the program has found another cuBLASLt than the stand-in";
    fake = find();
    *fake = {};
  }

  // Operands at these many bytes behind an aligned place.
  static ProductOperands At(int a, int bias = 0, int residual = 0, int y = 0) {
    alignas(256) static char memory[4][1024];
    return {memory[0] + a,        memory[1],     memory[2] + bias,
            memory[2] + residual, memory[3] + y, nullptr};
  }

  Status failed;
  std::unique_ptr<Products> products;
  cuda_test::FakeCublasLt* fake = nullptr;
};

TEST_F(CublasLtProducts, TakeABiasWhereverItsParametersLie) {
  for (const bool narrow : {false, true}) {
    ProductShape shape{.m = 4, .n = 2, .k = 50, .bf16 = narrow, .bf16_result = narrow};
    shape.bias = true;
    const auto product = products->Make(shape);
    ASSERT_NE(product, nullptr);
    product->Run(At(0));
    EXPECT_EQ(fake->last_alignment, 16u);
    // Parameters are packed into one buffer: behind 30 x 50 weights and 50 biases, and 100 weights.
    for (const int offset : narrow ? std::vector<int>{2, 4, 8} : std::vector<int>{4, 8}) {
      product->Run(At(0, offset));
      EXPECT_TRUE(failed.ok()) << offset << ": " << failed.ToString();
      EXPECT_LT(fake->last_alignment, 16u);
    }
  }
  EXPECT_EQ(fake->products, 7);
}

TEST_F(CublasLtProducts, TakeOperandsWhereverTheyLie) {
  const auto plain = products->Make({.m = 4, .n = 2, .k = 50});
  ASSERT_NE(plain, nullptr);
  for (const ProductOperands& operands : {At(4), At(0, 0, 0, 8)}) {
    plain->Run(operands);
    EXPECT_TRUE(failed.ok()) << failed.ToString();
  }
  // Operands of f32, and a result of bf16 that follows an odd number of others.
  const auto rounded = products->Make({.m = 4, .n = 2, .k = 50, .bf16_result = true});
  ASSERT_NE(rounded, nullptr);
  rounded->Run(At(0, 0, 0, 2));
  EXPECT_TRUE(failed.ok()) << failed.ToString();
}

TEST_F(CublasLtProducts, HaveTheirWorkspaceWhereTheLibraryWantsIt) {
  fake->workspace_bytes = 1000;
  const auto product = products->Make({.m = 4, .n = 2, .k = 50});
  ASSERT_NE(product, nullptr);
  alignas(256) static char memory[2048];
  for (const int offset : {0, 64, 192}) {
    ProductOperands operands = At(0);
    operands.workspace = memory + offset;
    product->Run(operands);
    EXPECT_TRUE(failed.ok()) << offset << ": " << failed.ToString();
    EXPECT_LE(static_cast<char*>(fake->last_workspace) + 1000,
              memory + offset + product->workspace_bytes());
    EXPECT_GE(fake->last_workspace, operands.workspace);
  }
}

TEST_F(CublasLtProducts, NeverAddPartsThatWereRounded) {
  products->Make({.m = 4, .n = 8, .k = 4096, .bf16 = true, .bf16_result = true})->Run(At(0));
  EXPECT_EQ(fake->last_sums & (kInPlace | kInOutputType), 0u);
  EXPECT_NE(fake->last_sums & kInComputeType, 0u);
  // The parts of an f32 result are f32 whatever the library does.
  products->Make({.m = 4, .n = 8, .k = 4096, .bf16 = true})->Run(At(0));
  EXPECT_NE(fake->last_sums & kInPlace, 0u);
}

TEST_F(CublasLtProducts, AreRefusedWhenTheyCouldNotRunEverywhere) {
  fake->least_alignment = 16;
  ProductShape shape{.m = 4, .n = 8, .k = 16};
  const auto plain = products->Make(shape);
  shape.bias = true;
  EXPECT_EQ(products->Make(shape), nullptr) << "it can be computed in two passes";
  // A plain product has no other way: where it cannot run, the device says so, once.
  ASSERT_NE(plain, nullptr);
  plain->Run(At(0));
  EXPECT_TRUE(failed.ok());
  plain->Run(At(4));
  EXPECT_THAT(failed.ToString(), HasSubstr("not aligned"));
  EXPECT_EQ(fake->products, 1);
}

TEST_F(CublasLtProducts, AreRefusedWhenTheLibraryHasNoWay) {
  fake->refuses_bias = true;
  ProductShape shape{.m = 4, .n = 8, .k = 16};
  EXPECT_NE(products->Make(shape), nullptr);
  shape.bias = true;
  EXPECT_EQ(products->Make(shape), nullptr);
  fake->bad_state = true;
  EXPECT_EQ(products->Make({.m = 4, .n = 8, .k = 16}), nullptr);
}

}  // namespace
}  // namespace lepton::kernels::cuda
