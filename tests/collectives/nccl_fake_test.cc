// The nccl back-end without GPUs: over a stand-in for the CUDA run time, linked in its place, and
// one for NCCL, loaded in its (fake_nccl.cc). Ranks are threads. What the real ones do is for
// nccl_test.cc to show, where there are GPUs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "collectives/communicator.h"
#include "runtime/base/progress.h"
#include "tests/collectives/conformance.h"
#include "tests/collectives/gang.h"
#include "tests/runtime/cuda/fake_cudart.h"

extern "C" {  // of the CUDA run time
int cudaGetDevice(int* device);
int cudaSetDevice(int device);
}

namespace lepton::collectives {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

class NcclFake : public ::testing::Test {
 protected:
  void SetUp() override {
    Cuda().devices = 4;
    Cuda().elsewhere = Cuda().not_ready = 0;
    ASSERT_TRUE(FindBackend("nccl").value()->Available().ok());
  }
  static cuda_test::FakeCuda& Cuda() { return cuda_test::TheFakeCuda(); }
  static std::vector<std::string> Run(int size, const RankBody& body) {
    return RunGang(
        {.backend = FindBackend("nccl").value(), .size = size, .ranks_as = RanksAs::kThreads},
        body);
  }
};

std::string SumOfRanks(Communicator& communicator) {
  float sum = static_cast<float>(communicator.rank() + 1);
  const Status status = communicator.AllReduce(&sum, &sum, 1, DataType::kFloat32, ReduceOp::kSum);
  if (!status.ok()) return status.ToString();
  const int size = communicator.size();
  return sum == static_cast<float>(size * (size + 1) / 2) ? "" : "sum " + std::to_string(sum);
}

TEST_F(NcclFake, EveryOperationGivesTheExactBits) {
  for (const int size : {1, 2, 3, 4}) {
    EXPECT_THAT(Run(size, RunConformance), Each("")) << size << " ranks";
  }
  EXPECT_EQ(Cuda().elsewhere, 0);
}

// The thread that calls computes on a device of its own.
TEST_F(NcclFake, ACallersDeviceIsItsOwnAfterwards) {
  const auto body = [](Communicator& communicator) -> std::string {
    int device = -1;
    cudaGetDevice(&device);
    if (device != 0) return "after the meeting: " + std::to_string(device);
    const int mine = 3 - communicator.rank();
    cudaSetDevice(mine);
    if (std::string wrong = SumOfRanks(communicator); !wrong.empty()) return wrong;
    cudaGetDevice(&device);
    return device == mine ? "" : "after an operation: " + std::to_string(device);
  };
  EXPECT_THAT(Run(3, body), Each(""));
  EXPECT_EQ(Cuda().elsewhere, 0);
}

// So that nobody takes a group for dead whose operation takes long.
TEST_F(NcclFake, WhatArrivesCountsAsMoves) {
  const uint64_t before = progress::Now().moves;
  EXPECT_THAT(Run(2, SumOfRanks), Each(""));
  const uint64_t one = progress::Now().moves - before;
  EXPECT_GE(one, 2u);
}

TEST_F(NcclFake, ASlowOperationIsWaitedFor) {
  Cuda().not_ready = 200;
  EXPECT_THAT(Run(2, SumOfRanks), Each(""));
}

// Each process sees one GPU, the same one.
TEST_F(NcclFake, TwoRanksOnOneGpuSayWhy) {
  Cuda().devices = 1;
  EXPECT_THAT(Run(2, SumOfRanks), Each(HasSubstr("Duplicate GPU detected")));
}

TEST_F(NcclFake, MoreRanksThanGpusSayWhy) {
  Cuda().devices = 2;
  EXPECT_THAT(Run(3, SumOfRanks), ::testing::Contains(HasSubstr("NCCL needs one for each rank")));
}

}  // namespace
}  // namespace lepton::collectives
