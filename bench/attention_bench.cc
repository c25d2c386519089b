// Attention alone, forward and backward, through a graph, its plan and its executor: what it
// reaches of the arithmetic that it does (half of the products where it is causal).
//   build/release/bench/attention_bench [rounds] [batch heads context size]
// Without arguments: 20 rounds of 12 6 256 64, the GPT of model_bench.cc.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "runtime/graph/executor.h"
#include "runtime/kernels/cpu/random_fill.h"
#include "runtime/kernels/kernel_list_cpu.h"
#include "runtime/ops/op_list.h"

namespace {

using lepton::Buffer;
using lepton::DType;
using lepton::graph::ValueId;

struct Extents {
  int64_t batch = 12, heads = 6, context = 256, size = 64;
};

Buffer RandomValues(int64_t count, DType dtype, uint32_t stream) {
  Buffer wide(count * sizeof(float));
  lepton::kernels::FillNormal({1, stream, 0, 0}, 0, count, 1, wide.as<float>());
  if (dtype == DType::kF32) return wide;
  Buffer narrow(count * sizeof(uint16_t));
  for (int64_t i = 0; i < count; ++i) {
    narrow.as<lepton::BF16>()[i] = lepton::BF16::FromFloat(wide.as<float>()[i]);
  }
  return narrow;
}

// The median of `rounds` runs after one; the outputs go to memory of their own.
double MedianMs(lepton::graph::Graph& graph, const std::vector<ValueId>& outputs,
                const std::vector<std::pair<ValueId, Buffer*>>& inputs, int rounds) {
  for (const ValueId output : outputs) {
    if (!graph.AddOutput(output, false).ok()) std::abort();
  }
  lepton::graph::Executor executor(graph, lepton::kernels::CpuKernels());
  lepton::graph::Plan* const plan = executor.PlanForBatch(1).value();
  for (const auto& [value, buffer] : inputs) plan->Bind(value, buffer->data());
  std::vector<double> times;
  for (int round = 0; round <= rounds; ++round) {
    const auto begin = std::chrono::steady_clock::now();
    plan->Run({});
    const std::chrono::duration<double, std::milli> taken =
        std::chrono::steady_clock::now() - begin;
    if (round > 0) times.push_back(taken.count());
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

void Measure(const Extents& e, DType dtype, bool causal, int rounds) {
  const int64_t width = e.heads * e.size, rows = e.batch * e.context;
  const lepton::TensorType packed{dtype, {e.batch, e.context, 3 * width}};
  const lepton::TensorType plain{dtype, {e.batch, e.context, width}};
  const lepton::TensorType sums{DType::kF32, {e.batch, e.heads, e.context}};
  const lepton::graph::Attributes attributes{{"heads", e.heads}, {"causal", int64_t{causal}}};
  Buffer x = RandomValues(rows * 3 * width, dtype, 1), y = RandomValues(rows * width, dtype, 2);
  Buffer dy = RandomValues(rows * width, dtype, 3);
  Buffer log_sums = RandomValues(rows * e.heads, DType::kF32, 4);
  for (int64_t i = 0; i < rows * e.heads; ++i) log_sums.as<float>()[i] += 8;

  lepton::graph::Graph forward(lepton::ops::OpList()), backward(lepton::ops::OpList());
  const ValueId qkv = forward.AddInput("qkv", packed);
  const double forward_ms = MedianMs(
      forward, forward.AddNode("packed_attention", {qkv}, attributes).value(), {{qkv, &x}}, rounds);
  const std::vector<ValueId> inputs = {
      backward.AddInput("qkv", packed), backward.AddInput("y", plain),
      backward.AddInput("log_sum", sums), backward.AddInput("dy", plain)};
  const double backward_ms = MedianMs(
      backward, backward.AddNode("packed_attention_grad", inputs, attributes).value(),
      {{inputs[0], &x}, {inputs[1], &y}, {inputs[2], &log_sums}, {inputs[3], &dy}}, rounds);
  // Two products forward, five backward.
  const double flops = 2.0 * static_cast<double>(rows * e.context * width) * (causal ? 0.5 : 1);
  std::cout << fmt::format(
      "{} {:6}  forward {:7.3f} ms {:5.0f} GFLOP/s   backward {:7.3f} ms {:5.0f} GFLOP/s\n",
      dtype == DType::kF32 ? "f32 " : "bf16", causal ? "causal" : "whole", forward_ms,
      2e-6 * flops / forward_ms, backward_ms, 5e-6 * flops / backward_ms);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 1 && argc != 2 && argc != 6) {
    std::cerr << "usage: attention_bench [rounds] [batch heads context size]\n";
    return 2;
  }
  const int rounds = argc > 1 ? std::max(1, std::atoi(argv[1])) : 20;
  Extents e;
  if (argc == 6)
    e = {std::atoll(argv[2]), std::atoll(argv[3]), std::atoll(argv[4]), std::atoll(argv[5])};
  if (e.batch < 1 || e.heads < 1 || e.context < 1 || e.size < 1) {
    std::cerr << "attention_bench: every extent must be at least 1\n";
    return 2;
  }
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const bool causal : {true, false}) Measure(e, dtype, causal, rounds);
  }
  return 0;
}
