// What a device makes of the run time's errors, seen by stand-ins for the run time and cuBLASLt
// that are linked and loaded in their places: memory is the host's, and kernels do nothing. That
// the real ones do as these only a GPU can show.
#include "runtime/kernels/cuda/cuda_device.h"

#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "runtime/graph/executor.h"
#include "runtime/ops/op_list.h"
#include "tests/runtime/cuda/fake_cudart.h"

namespace lepton::kernels::cuda {
namespace {

using ::testing::HasSubstr;

class CudaDeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ::setenv("LEPTON_CUDNN", "off", 1);
    auto opened = OpenCudaDevice();
    ASSERT_TRUE(opened.ok()) << opened.status().ToString();
    device = *std::move(opened);
    ASSERT_EQ(device->description(), "fake GPU, 1 GiB") << "this is the real run time";
    numbers = static_cast<int*>(device->Allocate(2 * sizeof(int)).value());
  }
  void TearDown() override {
    fake.no_capture = fake.no_graph = fake.no_memory = false;
    if (device == nullptr) return;
    device->Free(numbers);
    EXPECT_TRUE(device->Synchronize().ok());
  }
  // Recorded, or at once: the second number is the first.
  void QueueACopy() { device->CopyWithin(numbers + 1, numbers, sizeof(int)); }

  cuda_test::FakeCuda& fake = cuda_test::TheFakeCuda();
  std::unique_ptr<CudaDevice> device;
  int* numbers = nullptr;
};

TEST_F(CudaDeviceTest, ReplaysWhatItRecorded) {
  ASSERT_TRUE(device->BeginRecording().ok());
  QueueACopy();
  auto work = device->EndRecording();
  ASSERT_TRUE(work.ok()) << work.status().ToString();
  numbers[0] = 7;
  EXPECT_EQ(numbers[1], 0);
  (*work)->Replay();
  EXPECT_EQ(numbers[1], 7);
  EXPECT_TRUE(device->Synchronize().ok());
}

// The steps are queued one by one instead: nothing of the attempt may fail them.
TEST_F(CudaDeviceTest, ARecordingThatFailsIsForgotten) {
  for (auto* const broken : {&fake.no_capture, &fake.no_graph}) {
    numbers[0] = numbers[1] = 0;
    *broken = true;
    ASSERT_TRUE(device->BeginRecording().ok());
    QueueACopy();
    QueueACopy();
    EXPECT_EQ(device->EndRecording().status().code(), StatusCode::kFailedPrecondition);
    *broken = false;
    numbers[0] = 9;
    QueueACopy();
    EXPECT_EQ(device->Synchronize().ToString(), "OK");
    EXPECT_EQ(numbers[1], 9);
  }
}

TEST_F(CudaDeviceTest, WhatWentWrongBeforeARecordingIsNotForgotten) {
  for (const bool fails : {true, false}) {
    cuda_test::FailALaunch();
    fake.no_capture = fails;
    ASSERT_TRUE(device->BeginRecording().ok());
    QueueACopy();
    EXPECT_EQ(device->EndRecording().ok(), !fails);
    EXPECT_THAT(device->Synchronize().ToString(), HasSubstr("a launch"));
    EXPECT_TRUE(device->Synchronize().ok()) << "said once";
  }
}

// Others may go on without it, which would not help where a kernel is at fault.
TEST_F(CudaDeviceTest, ADeviceThatFailedIsToldFromWorkThatDid) {
  for (const cudaError_t error : {cudaErrorECCUncorrectable, cudaErrorNvlinkUncorrectable,
                                  cudaErrorNoDevice, cudaErrorUnknown}) {
    cuda_test::Fail(error);
    EXPECT_EQ(device->Synchronize().code(), StatusCode::kDeviceFailed) << error;
  }
  for (const cudaError_t error : {cudaErrorIllegalAddress, cudaErrorLaunchFailure,
                                  cudaErrorInvalidConfiguration, cudaErrorInvalidValue}) {
    cuda_test::Fail(error);
    EXPECT_EQ(device->Synchronize().code(), StatusCode::kInternal) << error;
  }
  EXPECT_TRUE(device->Synchronize().ok());
}

// A graph that lacks a step must not be replayed.
TEST_F(CudaDeviceTest, AStepThatFailsSpoilsTheRecording) {
  ASSERT_TRUE(device->BeginRecording().ok());
  cuda_test::FailALaunch();
  EXPECT_THAT(device->EndRecording().status().message(), HasSubstr("a launch"));
  EXPECT_TRUE(device->Synchronize().ok());
}

TEST_F(CudaDeviceTest, MemoryThatRunsOutHidesNoLaunchThatFailed) {
  const auto allocations = {&CudaDevice::Allocate, &CudaDevice::AllocatePinned};
  for (const auto allocate : allocations) {
    fake.no_memory = true;
    EXPECT_EQ((device.get()->*allocate)(16).status().code(), StatusCode::kResourceExhausted);
    EXPECT_TRUE(device->Synchronize().ok()) << "that was said where it happened";
    cuda_test::FailALaunch();
    EXPECT_FALSE((device.get()->*allocate)(16).ok());
    fake.no_memory = false;
    EXPECT_THAT(device->Synchronize().ToString(), HasSubstr("a launch"));
  }
}

// relu(x w), three times.
TEST_F(CudaDeviceTest, APlanRunsStepByStepWhereNothingCanBeRecorded) {
  graph::Graph graph(ops::OpList());
  const auto x = graph.AddInput("x", {DType::kF32, {Shape::kBatch, 4}});
  const auto w = graph.AddParameter("w", {DType::kF32, {4, 4}});
  const auto y = graph.Add("relu", {graph.Add("matmul", {x, w}).value()}).value();
  ASSERT_TRUE(graph.AddOutput(y, false).ok());
  for (const bool records : {true, false}) {
    fake.no_capture = !records;
    graph::Executor executor(graph, device->kernels(), {}, {.accelerator = device.get()});
    graph::Plan* const plan = executor.PlanForBatch(2).value();
    Buffer weights = Buffer::On(device.get(), 16 * sizeof(float)).value();
    plan->Bind(w, weights.data());
    std::vector<float> data(8);
    for (int step = 0; step < 3; ++step) {
      const int before = fake.kernels;
      ASSERT_TRUE(plan->Feed(x, data.data()).ok());
      plan->RunPrologue({});
      plan->Run({});
      EXPECT_EQ(plan->Fetch(y, data.data()).ToString(), "OK") << "step " << step;
      EXPECT_EQ(plan->replays(), records && step > 0);
      EXPECT_GT(fake.kernels, before);
    }
  }
}

}  // namespace
}  // namespace lepton::kernels::cuda
