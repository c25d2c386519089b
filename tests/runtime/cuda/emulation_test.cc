// The emulation does what CUDA's threads do, and notices what they must not.
#include <gtest/gtest.h>

#include <vector>

#include "runtime/kernels/cuda/device/code.cuh"
#include "runtime/kernels/cuda/emulation/emulated_device.h"

namespace lepton::kernels::cuda {
namespace {

struct EmulatedThreads : testing::Test {
  emulation::EmulatedDevice device;
  ~EmulatedThreads() override { emulation::ReverseThreads(false); }
};

__global__ void SumOfBlock(const float* x, float* y) {
  __shared__ float scratch[kWarp];
  const float sum = BlockSum(x[GlobalIndex()], scratch);
  y[GlobalIndex()] = sum;
}

TEST_F(EmulatedThreads, AddUpOverABlockInAnyOrder) {
  std::vector<float> x(3 * 256), y(x.size());
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i);
  for (const bool reverse : {false, true}) {
    emulation::ReverseThreads(reverse);
    Launch(SumOfBlock, Grid{3}, 256, 0, device.stream(), x.data(), y.data());
    for (size_t block = 0; block < 3; ++block) {
      const float wanted = 256.0f * (static_cast<float>(block) * 256 + 127.5f);
      EXPECT_EQ(y[block * 256], wanted);
      EXPECT_EQ(y[block * 256 + 255], wanted);
    }
  }
}

__global__ void Rotate(const int* x, int* y) {
  const int lane = threadIdx.x % kWarp;
  y[threadIdx.x] = __shfl_sync(kAllLanes, x[threadIdx.x], (lane + 1) % kWarp);
}

TEST_F(EmulatedThreads, ExchangeWithinTheirWarp) {
  std::vector<int> x(64), y(64);
  for (int i = 0; i < 64; ++i) x[i] = i;
  Launch(Rotate, Grid{1}, 64, 0, device.stream(), x.data(), y.data());
  EXPECT_EQ(y[0], 1);
  EXPECT_EQ(y[31], 0);
  EXPECT_EQ(y[63], 32);
}

// Thread i reads what thread i - 1 wrote, without a barrier in between.
__global__ void ForgetsABarrier(int* y) {
  __shared__ int cells[64];
  cells[threadIdx.x] = 0;
  __syncthreads();
  cells[threadIdx.x] = 1;
  y[threadIdx.x] = threadIdx.x == 0 ? 1 : cells[threadIdx.x - 1];
}

TEST_F(EmulatedThreads, ShowAMissingBarrierInTheOtherOrder) {
  std::vector<int> forward(64), backward(64);
  Launch(ForgetsABarrier, Grid{1}, 64, 0, device.stream(), forward.data());
  emulation::ReverseThreads(true);
  Launch(ForgetsABarrier, Grid{1}, 64, 0, device.stream(), backward.data());
  EXPECT_NE(forward, backward);
}

__global__ void WaitsWithoutTheOthers() {
  if (threadIdx.x < 7) __syncthreads();
}
__global__ void ShufflesWithoutTheOthers(float* y) {
  if (threadIdx.x < 7) y[threadIdx.x] = WarpSum(1);
}

TEST_F(EmulatedThreads, EndTheProcessAtABarrierThatOnlySomeReach) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(Launch(WaitsWithoutTheOthers, Grid{1}, 64, 0, device.stream()),
               "not reached by all its threads");
  std::vector<float> y(64);
  EXPECT_DEATH(Launch(ShufflesWithoutTheOthers, Grid{1}, 64, 0, device.stream(), y.data()),
               "not reached by all its lanes");
}

__global__ void ReadsWhatNobodyWrote(float* y) {
  y[threadIdx.x] = Shared<float>()[threadIdx.x];
}

TEST_F(EmulatedThreads, FindNoNumbersInNewSharedMemory) {
  std::vector<float> y(32);
  Launch(ReadsWhatNobodyWrote, Grid{1}, 32, 32 * sizeof(float), device.stream(), y.data());
  EXPECT_NE(y[5], y[5]);
}

TEST_F(EmulatedThreads, KeepWorkWhileTheDeviceRecords) {
  std::vector<float> x(256, 1), y(256);
  ASSERT_TRUE(device.BeginRecording().ok());
  Launch(SumOfBlock, Grid{1}, 256, 0, device.stream(), x.data(), y.data());
  EXPECT_EQ(y[0], 0);
  auto work = device.EndRecording();
  ASSERT_TRUE(work.ok());
  EXPECT_EQ(y[0], 0);
  (*work)->Replay();
  EXPECT_EQ(y[0], 256);
}

}  // namespace
}  // namespace lepton::kernels::cuda
