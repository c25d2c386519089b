// Plans on a device: what follows a product is folded into it, steps are recorded and replayed, and
// errors say what is missing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "runtime/graph/executor.h"
#include "runtime/kernels/kernel_list_cpu.h"
#include "runtime/ops/op_list.h"
#include "tests/runtime/cuda/cuda_test.h"
#include "tests/runtime/engine/op_cases.h"

#ifdef LEPTON_EMULATED_CUDA
#include "runtime/kernels/cuda/emulation/emulated_device.h"
#endif

namespace lepton::cuda_test {
namespace {

using engine_test::F32;
using engine_test::HostTensor;
using engine_test::RandomTensor;
using graph::Executor;
using graph::Graph;
using graph::Plan;
using graph::PlanOptions;
using graph::RunState;
using graph::ValueId;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

// relu(x w + bias) + x v, rounded; and dropout of it.
struct TwoProducts {
  TwoProducts() : graph(ops::OpList()) {
    x = graph.AddInput("x", F32({Shape::kBatch, 12}));
    w = graph.AddParameter("w", F32({12, 20}));
    v = graph.AddParameter("v", F32({12, 20}));
    bias = graph.AddParameter("bias", F32({20}));
    const ValueId first = graph.Add("matmul", {x, w}).value();
    const ValueId biased = graph.Add("bias_add", {first, bias}).value();
    const ValueId active = graph.Add("relu", {biased}).value();
    const ValueId second = graph.Add("matmul", {x, v}).value();
    sum = graph.Add("add", {active, second}).value();
    rounded = graph.Add("cast", {sum}, {{"to", "bf16"}}).value();
    dropped = graph.Add("dropout", {sum}, {{"rate", 0.5}, {"stream", int64_t{2}}}).value();
    for (const ValueId value : {rounded, dropped}) {
      EXPECT_TRUE(graph.AddOutput(value, false).ok());
    }
    for (const ValueId value : {w, v, bias}) {
      parameters.push_back(RandomTensor(graph.type(value), 70 + value));
    }
  }

  // The plan for a batch of 7, bound to memory of the device that `places` keeps.
  Plan* Bound(Executor& executor, CudaDevice* device, std::vector<Buffer>& places) {
    bool made = false;
    auto planned = executor.PlanForBatch(7, &made);
    EXPECT_TRUE(planned.ok()) << planned.status().ToString();
    Plan* const plan = *planned;
    const ValueId ids[] = {w, v, bias};
    for (size_t i = 0; i < 3; ++i) {
      HostTensor& tensor = parameters[i];
      if (device == nullptr) {
        plan->Bind(ids[i], tensor.data.data());
        continue;
      }
      places.push_back(Buffer::On(device, tensor.data.size()).value());
      device->CopyIn(places.back().data(), tensor.data.data(), tensor.data.size());
      EXPECT_TRUE(device->Synchronize().ok());
      plan->Bind(ids[i], places.back().data());
    }
    return plan;
  }

  std::vector<float> Run(Plan& plan, uint64_t step, uint64_t input_seed) {
    HostTensor input = RandomTensor(F32({7, 12}), input_seed);
    EXPECT_TRUE(plan.Feed(x, input.data.data()).ok());
    plan.RunPrologue({1, step, 3});
    plan.Run({1, step, 3});
    std::vector<float> result(7 * 20 * 2);
    std::vector<BF16> narrow(7 * 20);
    EXPECT_TRUE(plan.Fetch(dropped, result.data()).ok());
    EXPECT_TRUE(plan.Fetch(rounded, narrow.data()).ok());
    for (int i = 0; i < 7 * 20; ++i) result[7 * 20 + i] = BF16::ToFloat(narrow[i]);
    return result;
  }

  Graph graph;
  ValueId x, w, v, bias, sum, rounded, dropped;
  std::vector<HostTensor> parameters;
};

void ExpectAlike(const std::vector<float>& got, const std::vector<float>& wanted) {
  ASSERT_EQ(got.size(), wanted.size());
  for (size_t i = 0; i < got.size(); ++i) {
    // The second half is rounded to bf16.
    const double tolerance = i < got.size() / 2 ? 1e-5 : 1.0 / 128;
    ASSERT_NEAR(got[i], wanted[i], tolerance * (1 + std::abs(wanted[i]))) << i;
  }
}

TEST(DevicePlan, GivesTheHostsResultsFusedAndUnfused) {
  CudaDevice* const device = DeviceOrNull();
  if (device == nullptr) GTEST_SKIP() << WhyNoDevice();
  TwoProducts graph;
  Executor on_host(graph.graph, kernels::CpuKernels());
  std::vector<Buffer> none;
  const auto wanted = graph.Run(*graph.Bound(on_host, nullptr, none), 5, 1);
  for (const bool fuse : {true, false}) {
    std::vector<Buffer> places;
    Executor executor(graph.graph, device->kernels(), {}, {.fuse = fuse, .accelerator = device});
    Plan* const plan = graph.Bound(executor, device, places);
    ExpectAlike(graph.Run(*plan, 5, 1), wanted);
    const auto names = plan->KernelNames();
    if (fuse) {
      EXPECT_THAT(names, Contains("matmul+bias_add+relu: library"));
      EXPECT_THAT(names, Contains(HasSubstr("matmul+add")));
    } else {
      EXPECT_THAT(names, Not(Contains(HasSubstr("+"))));
    }
  }
}

// Two convolutions of bf16, rounded: of the second somebody reads the sums, too.
TEST(DevicePlan, LetsTheLibraryRoundConvolutions) {
  CudaDevice* const device = DeviceOrNull();
  if (device == nullptr) GTEST_SKIP() << WhyNoDevice();
  Graph graph(ops::OpList());
  const auto narrow = [&](ValueId value) {
    return graph.Add("cast", {value}, {{"to", "bf16"}}).value();
  };
  const ValueId x = graph.AddInput("x", F32({Shape::kBatch, 16, 8, 8}));
  const ValueId w = graph.AddParameter("w", F32({16, 16, 3, 3}));
  const ValueId v = graph.AddParameter("v", F32({24, 16, 3, 3}));
  const graph::Attributes window = {{"pads", std::vector<int64_t>{1, 1, 1, 1}}};
  const ValueId first = graph.Add("conv2d", {narrow(x), narrow(w)}, window).value();
  const ValueId sums = graph.Add("conv2d", {narrow(first), narrow(v)}, window).value();
  const ValueId rounded = narrow(sums);
  for (const ValueId value : {sums, rounded}) ASSERT_TRUE(graph.AddOutput(value, false).ok());
  HostTensor input = RandomTensor(F32({3, 16, 8, 8}), 11);
  HostTensor w_data = RandomTensor(graph.type(w), 12), v_data = RandomTensor(graph.type(v), 13);
  constexpr int64_t kCount = 3 * 24 * 8 * 8;
  const auto run = [&](CudaDevice* on) {
    Executor executor(graph, on == nullptr ? kernels::CpuKernels() : on->kernels(), {},
                      {.accelerator = on});
    Plan* const plan = executor.PlanForBatch(3).value();
    std::vector<Buffer> places;
    for (const auto& [id, tensor] : {std::pair{w, &w_data}, std::pair{v, &v_data}}) {
      places.push_back(Buffer::On(on, tensor->data.size()).value());
      if (on == nullptr) {
        std::memcpy(places.back().data(), tensor->data.data(), tensor->data.size());
      } else {
        on->CopyIn(places.back().data(), tensor->data.data(), tensor->data.size());
        EXPECT_TRUE(on->Synchronize().ok());
      }
      plan->Bind(id, places.back().data());
    }
    EXPECT_TRUE(plan->Feed(x, input.data.data()).ok());
    plan->RunPrologue({});
    plan->Run({});
    std::vector<float> result(kCount);
    std::vector<BF16> halves(kCount);
    EXPECT_TRUE(plan->Fetch(sums, result.data()).ok());
    EXPECT_TRUE(plan->Fetch(rounded, halves.data()).ok());
    for (int64_t i = 0; i < kCount; ++i) {
      EXPECT_NEAR(BF16::ToFloat(halves[i]), result[i], std::abs(result[i]) / 128) << i;
    }
    if (on != nullptr && on->convolutions() != nullptr) {
      EXPECT_THAT(plan->KernelNames(), Contains(HasSubstr("conv2d+cast: library rounded")));
    }
    return result;
  };
  const auto wanted = run(nullptr), got = run(device);
  for (int64_t i = 0; i < kCount; ++i) {
    ASSERT_NEAR(got[i], wanted[i], 0.02 * (1 + std::abs(wanted[i]))) << i;
  }
}

TEST(DevicePlan, ReplaysItsStepsWithOtherInputsAndOtherRandomNumbers) {
  CudaDevice* const device = DeviceOrNull();
  if (device == nullptr) GTEST_SKIP() << WhyNoDevice();
  TwoProducts graph;
  Executor on_host(graph.graph, kernels::CpuKernels());
  std::vector<Buffer> none, places;
  Plan* const host_plan = graph.Bound(on_host, nullptr, none);
  Executor executor(graph.graph, device->kernels(), {}, {.accelerator = device});
  Plan* const plan = graph.Bound(executor, device, places);
  for (uint64_t step = 0; step < 4; ++step) {
    SCOPED_TRACE(step);
    ExpectAlike(graph.Run(*plan, step, 20 + step), graph.Run(*host_plan, step, 20 + step));
    EXPECT_EQ(plan->replays(), step > 0);
  }
  // In another place: what was recorded knows the old one.
  places.push_back(Buffer::On(device, graph.parameters[0].data.size()).value());
  plan->Bind(graph.w, places.back().data());
  EXPECT_FALSE(plan->replays());
  HostTensor zeros = engine_test::MakeTensor(graph.graph.type(graph.w));
  std::swap(graph.parameters[0], zeros);
  host_plan->Bind(graph.w, graph.parameters[0].data.data());
  ExpectAlike(graph.Run(*plan, 9, 30), graph.Run(*host_plan, 9, 30));
}

// A row's numbers follow from where it lies, also where rows are not whole groups of four.
TEST(DevicePlan, DropsWhatTheHostDropsInRowsOfAnyWidth) {
  CudaDevice* const device = DeviceOrNull();
  if (device == nullptr) GTEST_SKIP() << WhyNoDevice();
  Graph graph(ops::OpList());
  const ValueId x = graph.AddInput("x", F32({Shape::kBatch, 6}));
  const ValueId w = graph.AddParameter("w", F32({6, 13}));
  const ValueId product = graph.Add("matmul", {x, w}).value();
  const ValueId y =
      graph.Add("dropout", {product}, {{"rate", 0.5}, {"stream", int64_t{2}}}).value();
  ASSERT_TRUE(graph.AddOutput(y, false).ok());
  HostTensor input = RandomTensor(F32({5, 6}), 41), weights = RandomTensor(F32({6, 13}), 42);
  const auto run = [&](CudaDevice* on) {
    Executor executor(graph, on == nullptr ? kernels::CpuKernels() : on->kernels(), {},
                      {.accelerator = on});
    Plan* const plan = executor.PlanForBatch(5).value();
    Buffer place = Buffer::On(on, weights.data.size()).value();
    if (on == nullptr) {
      std::memcpy(place.data(), weights.data.data(), weights.data.size());
    } else {
      on->CopyIn(place.data(), weights.data.data(), weights.data.size());
      EXPECT_TRUE(on->Synchronize().ok());
    }
    plan->Bind(w, place.data());
    EXPECT_TRUE(plan->Feed(x, input.data.data()).ok());
    plan->RunPrologue({1, 4, 3});
    plan->Run({1, 4, 3});
    std::vector<float> result(5 * 13);
    EXPECT_TRUE(plan->Fetch(y, result.data()).ok());
    return result;
  };
  const auto got = run(device), wanted = run(nullptr);
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_NEAR(got[i], wanted[i], 1e-5 * (1 + std::abs(wanted[i]))) << i;
  }
}

TEST(DevicePlan, RecordsOnlyWhenAsked) {
  CudaDevice* const device = DeviceOrNull();
  if (device == nullptr) GTEST_SKIP() << WhyNoDevice();
  TwoProducts graph;
  std::vector<Buffer> places;
  Executor executor(graph.graph, device->kernels(), {}, {.accelerator = device, .record = false});
  Plan* const plan = graph.Bound(executor, device, places);
  const auto first = graph.Run(*plan, 1, 2);
  const auto second = graph.Run(*plan, 1, 2);
  EXPECT_FALSE(plan->replays());
  EXPECT_EQ(std::memcmp(first.data(), second.data(), first.size() * sizeof(float)), 0);
}

TEST(DevicePlan, SaysWhichOpHasNoKernel) {
  CudaDevice* const device = DeviceOrNull();
  if (device == nullptr) GTEST_SKIP() << WhyNoDevice();
  TwoProducts graph;
  const graph::KernelTable none({});
  Executor executor(graph.graph, none, {}, {.accelerator = device});
  const auto plan = executor.PlanForBatch(7);
  ASSERT_FALSE(plan.ok());
  EXPECT_THAT(plan.status().message(), HasSubstr("on cuda:0"));
}

#ifdef LEPTON_EMULATED_CUDA
TEST(DevicePlan, DoesByItselfWhatTheLibraryRefuses) {
  auto* const device = static_cast<kernels::cuda::emulation::EmulatedDevice*>(DeviceOrNull());
  TwoProducts graph;
  Executor on_host(graph.graph, kernels::CpuKernels());
  std::vector<Buffer> none, places;
  const auto wanted = graph.Run(*graph.Bound(on_host, nullptr, none), 5, 1);
  const int before = device->products().epilogues();
  device->products().RefuseEpilogues(true);
  Executor executor(graph.graph, device->kernels(), {}, {.accelerator = device});
  ExpectAlike(graph.Run(*graph.Bound(executor, device, places), 5, 1), wanted);
  EXPECT_EQ(device->products().epilogues(), before);
  device->products().RefuseEpilogues(false);
  Executor folding(graph.graph, device->kernels(), {}, {.accelerator = device});
  ExpectAlike(graph.Run(*graph.Bound(folding, device, places), 5, 1), wanted);
  EXPECT_EQ(device->products().epilogues(), before + 2);
}

TEST(DevicePlan, ConvolvesWithoutTheLibrary) {
  auto* const device = static_cast<kernels::cuda::emulation::EmulatedDevice*>(DeviceOrNull());
  Graph graph(ops::OpList());
  const ValueId x = graph.AddInput("x", F32({Shape::kBatch, 4, 5, 5}));
  const ValueId w = graph.AddParameter("w", F32({4, 4, 3, 3}));
  ASSERT_TRUE(graph.AddOutput(graph.Add("conv2d", {x, w}).value(), false).ok());
  for (const bool refuse : {false, true}) {
    device->convolutions()->Refuse(refuse);
    Executor executor(graph, device->kernels(), {}, {.accelerator = device});
    EXPECT_THAT(executor.PlanForBatch(2).value()->KernelNames(),
                Contains(refuse ? "conv2d: products" : "conv2d: library"));
  }
  device->convolutions()->Refuse(false);
}

TEST(DevicePlan, LeavesNothingOnTheDevice) {
  kernels::cuda::emulation::EmulatedDevice device;
  {
    TwoProducts graph;
    std::vector<Buffer> places;
    Executor executor(graph.graph, device.kernels(), {}, {.accelerator = &device});
    graph.Run(*graph.Bound(executor, &device, places), 5, 1);
    EXPECT_GT(device.allocated_bytes(), 0u);
  }
  EXPECT_EQ(device.allocated_bytes(), 0u);
}

TEST(DevicePlan, SaysThatTheDeviceIsFull) {
  kernels::cuda::emulation::EmulatedDevice device;
  const auto buffer = Buffer::On(&device, size_t{100} << 30);
  ASSERT_FALSE(buffer.ok());
  EXPECT_EQ(buffer.status().code(), StatusCode::kResourceExhausted);
}
#endif

}  // namespace
}  // namespace lepton::cuda_test
