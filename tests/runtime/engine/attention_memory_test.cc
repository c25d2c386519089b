// Attention and its gradient never have a matrix of all scores in memory: of one head with 4,096
// keys that would be 64 MiB, in bf16 32.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "runtime/graph/autodiff.h"
#include "runtime/graph/executor.h"
#include "runtime/kernels/kernel_list_cpu.h"
#include "runtime/ops/op_list.h"
#include "tests/runtime/engine/op_cases.h"
#include "tests/runtime/engine/thread_counts.h"

namespace lepton::engine_test {
namespace {

using graph::ValueId;

constexpr int64_t kKeys = 4096, kHeads = 2, kHeadSize = 16;

// The most memory that this process ever had, in MiB.
double MostMemory() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    double kilobytes = 0;
    std::string name;
    if (std::istringstream(line) >> name >> kilobytes && name == "VmHWM:") return kilobytes / 1024;
  }
  return -1;
}

// Everything that one step of forward and backward took: the plan, workspaces, what threads keep.
double MemoryOfAStep(const std::string& op, DType dtype, bool causal) {
  graph::Graph g(ops::OpList());
  const int64_t width = kHeads * kHeadSize;
  std::vector<HostTensor> data;
  std::vector<ValueId> inputs;
  for (int i = 0; i < (op == "attention" ? 3 : 1); ++i) {
    const TensorType type{dtype, {1, kKeys, op == "attention" ? width : 3 * width}};
    data.push_back(RandomTensor(type, 7 + i, -1, 1));
    inputs.push_back(g.AddInput("x", type));
  }
  const ValueId y =
      g.Add(op, inputs, {{"heads", kHeads}, {"causal", static_cast<int64_t>(causal)}}).value();
  const ValueId numbers = dtype == DType::kF32 ? y : g.Add("cast", {y}, {{"to", "f32"}}).value();
  const auto gradients = graph::AddGradients(g, numbers, inputs).value();
  EXPECT_TRUE(g.AddOutput(y, false).ok());
  for (const ValueId gradient : gradients) EXPECT_TRUE(g.AddOutput(gradient, false).ok());
  const double before = MostMemory();
  graph::Executor executor(g, kernels::CpuKernels());
  graph::Plan* const plan = executor.PlanForBatch(1).value();
  for (size_t i = 0; i < inputs.size(); ++i) plan->Bind(inputs[i], data[i].data.data());
  plan->RunPrologue({});
  plan->Run({});
  return MostMemory() - before;
}

// One after the other, since what threads keep is used again.
std::string MemoryOfSteps() {
  double sum = 0;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    sum += MemoryOfAStep("attention", dtype, false);
    sum += MemoryOfAStep("packed_attention", dtype, true);
  }
  return std::to_string(sum);
}

TEST(AttentionMemoryChild, WritesWhatItTook) {
  WriteForParent(MemoryOfSteps);
}

TEST(AttentionMemory, IsFarFromThatOfAllScores) {
#if defined(LEPTON_TSAN) || defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "a sanitizer keeps memory of its own";
#endif
  const std::string text = WithThreads("AttentionMemoryChild.WritesWhatItTook", {3}).front();
  const double megabytes = std::atof(text.c_str());
  std::printf("%.1f MiB\n", megabytes);
  EXPECT_GT(megabytes, 1) << "nothing was measured";
  EXPECT_LT(megabytes, 30);
}

}  // namespace
}  // namespace lepton::engine_test
