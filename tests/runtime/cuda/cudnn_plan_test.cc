// What cuDNN computes of our convolutions and attentions, asked without a GPU: it makes plans for a
// device that is described to it. That they compute the right thing is for cuda_gpu_test to show on
// one.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "runtime/kernels/cuda/cudnn_backend.h"

namespace lepton::kernels::cuda {
namespace {

// An H200, as cuDNN 9 describes one.
constexpr char kHopper[] = R"({
  "deviceName": "NVIDIA H200", "name": "NVIDIA H200", "deviceVer": 900, "driverVer": 13000,
  "cudaDeviceId": 0, "pciDeviceId": 0, "isTccDriver": 0, "supportCoopLaunch": 1,
  "multiProcessorCount": 132, "totalGlobalMem": 150754820096, "l2CacheSize": 62914560,
  "smClockRateKHz": 1980000, "memClockRateKHz": 3201000, "warpSize": 32,
  "maxGridSize": [2147483647, 65535, 65535], "maxBlockSize": [1024, 1024, 64],
  "maxThreadsPerBlock": 1024, "maxThreadsPerSM": 2048, "maxCtasPerSM": 32,
  "regsPerBlock": 65536, "maxRegistersPerSM": 65536, "maxSharedMemoryPerBlock": 49152,
  "maxSharedMemoryPerBlockOptin": 232448, "reservedSharedMemoryPerBlock": 1024,
  "maxSharedMemoryPerSM": 233472})";

struct Case {
  const char* label;
  int64_t images, in, out, size, extent, stride, before, groups = 1;
};
constexpr Case kCases[] = {
    {"ResNet's first, large", 8, 3, 64, 224, 7, 2, 3},
    {"ResNet's first, small", 64, 3, 64, 32, 3, 1, 1},
    {"3x3", 64, 64, 64, 32, 3, 1, 1},
    {"3x3 of stride 2", 64, 64, 128, 32, 3, 2, 1},
    {"1x1 of stride 2", 64, 64, 128, 32, 1, 2, 0},
    {"1x1", 16, 256, 64, 56, 1, 1, 0},
    {"last stage", 64, 512, 512, 4, 3, 1, 1},
    {"ViT's patches", 16, 3, 192, 224, 16, 16, 0},
    {"one image", 1, 64, 64, 56, 3, 1, 1},
    {"odd extents", 3, 5, 7, 13, 3, 1, 1},
    {"groups", 8, 64, 64, 28, 3, 1, 1, 4},
};

ConvolutionShape ShapeOf(const Case& c, ConvolutionPass pass, bool bf16) {
  ConvolutionShape shape;
  shape.pass = pass;
  shape.bf16_result = shape.conv.bf16 = bf16;
  shape.conv.images = c.images;
  shape.conv.in_channels = c.in;
  shape.conv.out_channels = c.out;
  shape.conv.groups = c.groups;
  const int64_t outputs = (c.size + 2 * c.before - c.extent) / c.stride + 1;
  shape.conv.h = shape.conv.w = {c.extent, c.stride, 1, c.before, c.size, outputs};
  return shape;
}

TEST(CudnnPlans, AreThereForTheModelsConvolutions) {
  const auto first =
      PlanWithoutDevice(ShapeOf(kCases[2], ConvolutionPass::kForward, true), kHopper);
  if (first.status().code() == StatusCode::kUnavailable) GTEST_SKIP() << first.status().ToString();
  for (const Case& c : kCases) {
    for (const auto pass :
         {ConvolutionPass::kForward, ConvolutionPass::kInputGrad, ConvolutionPass::kWeightGrad}) {
      for (const bool bf16 : {false, true}) {
        if (bf16 && pass == ConvolutionPass::kWeightGrad) continue;  // conv_library.cc
        const auto plan = PlanWithoutDevice(ShapeOf(c, pass, bf16), kHopper);
        EXPECT_TRUE(plan.ok()) << c.label << (bf16 ? ", bf16" : ", f32") << ", pass "
                               << static_cast<int>(pass) << ": " << plan.status().ToString();
      }
    }
  }
}

TEST(CudnnPlans, AreRefusedWithTheReason) {
  ConvolutionShape wrong = ShapeOf(kCases[2], ConvolutionPass::kForward, true);
  wrong.conv.h.stride = 0;
  const auto plan = PlanWithoutDevice(wrong, kHopper);
  ASSERT_FALSE(plan.ok());
  if (plan.status().code() == StatusCode::kUnavailable) GTEST_SKIP() << plan.status().ToString();
  EXPECT_EQ(plan.status().code(), StatusCode::kNotFound);
  EXPECT_NE(plan.status().message().find("CUDNN_STATUS"), std::string::npos)
      << plan.status().ToString();
  // bf16 in, f32 out is what it does not have.
  ConvolutionShape wide = ShapeOf(kCases[2], ConvolutionPass::kForward, true);
  wide.bf16_result = false;
  EXPECT_EQ(PlanWithoutDevice(wide, kHopper).status().code(), StatusCode::kNotFound);
}

TEST(CudnnWish, IsOnOrOff) {
  EXPECT_TRUE(*WantsCudnn());
  ::setenv("LEPTON_CUDNN", "off", 1);
  EXPECT_FALSE(*WantsCudnn());
  ::setenv("LEPTON_CUDNN", "0", 1);
  EXPECT_NE(WantsCudnn().status().message().find("LEPTON_CUDNN: '0'"), std::string::npos);
  ::unsetenv("LEPTON_CUDNN");
}

AttentionArguments ArgumentsOf(int64_t kv_heads, int64_t tokens, int64_t size, bool causal) {
  AttentionArguments a;
  a.batch = 4;
  a.heads = 12;
  a.kv_heads = kv_heads;
  a.queries = a.keys = tokens;
  a.size = size;
  a.q_pitch = a.kv_pitch = (a.heads + 2 * kv_heads) * size;
  a.k_start = a.heads * size;
  a.v_start = a.k_start + kv_heads * size;
  a.y_pitch = a.heads * size;
  a.scale = 0.125f;
  a.causal = causal;
  a.bf16 = true;
  return a;
}

// Engines for attention compile their code when a plan is made, and load it with the driver. The
// test runs with the toolkit's stand-in for the driver, which loads nothing: the plan fails there,
// or not at all.
TEST(CudnnPlans, AreThereForAttention) {
  if (::dlopen("libcuda.so.1", RTLD_NOW) == nullptr) GTEST_SKIP() << ::dlerror();
  for (const auto pass : {AttentionPass::kForward, AttentionPass::kGradient}) {
    for (const AttentionArguments& a :
         {ArgumentsOf(12, 1024, 64, true), ArgumentsOf(4, 200, 128, false)}) {
      const auto plan = PlanWithoutDevice(a, pass, kHopper);
      if (plan.status().code() == StatusCode::kUnavailable) {
        GTEST_SKIP() << plan.status().ToString();
      }
      EXPECT_TRUE(plan.ok() || plan.status().code() == StatusCode::kFailedPrecondition)
          << "pass " << static_cast<int>(pass) << ", " << a.queries
          << " tokens: " << plan.status().ToString();
    }
  }
  AttentionArguments windowed = ArgumentsOf(12, 64, 64, true);
  windowed.window = 8;
  const auto refused = PlanWithoutDevice(windowed, AttentionPass::kForward, kHopper);
  EXPECT_EQ(refused.status().code(), StatusCode::kNotFound) << refused.status().ToString();
}

}  // namespace
}  // namespace lepton::kernels::cuda
