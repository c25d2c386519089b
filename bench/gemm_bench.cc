// The engine's matrix product, through a graph, its plan and its executor, against one bare oneDNN
// primitive on the same data and the same number of threads. Weights are packed beforehand on both
// sides. The results are compared before anything is timed. Rounds alternate, so that a busy
// machine slows both sides; below 1 the engine is faster. At the end, what all products of a
// training step of the GPT of model_bench.cc take on both sides.
//   build/release/bench/gemm_bench [rounds] [threads]
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <dnnl.hpp>
#include <unordered_map>
#include <vector>

#include "runtime/base/thread_pool.h"
#include "runtime/graph/executor.h"
#include "runtime/kernels/kernel_list_cpu.h"
#include "runtime/ops/op_list.h"
#include "runtime/tensor/counter_random.h"

namespace lepton {
namespace {

struct Problem {
  const char* what;
  int64_t m, k, n;
  bool transpose_a, transpose_b;
  bool frozen = false;  // b is a weight
  int in_gpt_step = 0;  // how often a step of the GPT needs it
};

constexpr int64_t kTokens = 12 * 256;

constexpr Problem kProblems[] = {
    {"digits, forward", 64, 64, 128, false, false},
    {"MLP 784-1024, forward", 128, 784, 1024, false, false},
    {"MLP 1024-1024, forward", 128, 1024, 1024, false, false},
    {"MLP 1024-1024, input gradient", 128, 1024, 1024, false, true},
    {"MLP 1024-1024, weight gradient", 1024, 128, 1024, true, false},
    {"square 1024", 1024, 1024, 1024, false, false},
    {"GPT qkv, forward", kTokens, 384, 1152, false, false, true, 6},
    {"GPT out, forward", kTokens, 384, 384, false, false, true, 6},
    {"GPT up, forward", kTokens, 384, 1536, false, false, true, 6},
    {"GPT down, forward", kTokens, 1536, 384, false, false, true, 6},
    {"GPT head, forward", kTokens, 384, 65, false, true, true, 1},
    {"GPT qkv, input gradient", kTokens, 1152, 384, false, true, true, 6},
    {"GPT out, input gradient", kTokens, 384, 384, false, true, true, 6},
    {"GPT up, input gradient", kTokens, 1536, 384, false, true, true, 6},
    {"GPT down, input gradient", kTokens, 384, 1536, false, true, true, 6},
    {"GPT head, input gradient", kTokens, 65, 384, false, false, true, 1},
    {"GPT qkv, weight gradient", 384, kTokens, 1152, true, false, false, 6},
    {"GPT out, weight gradient", 384, kTokens, 384, true, false, false, 6},
    {"GPT up, weight gradient", 384, kTokens, 1536, true, false, false, 6},
    {"GPT down, weight gradient", 1536, kTokens, 384, true, false, false, 6},
    {"GPT head, weight gradient", 65, kTokens, 384, true, false, false, 1},
};

Buffer RandomMatrix(int64_t elements, DType dtype, uint64_t seed) {
  Buffer buffer(elements * DTypeSize(dtype));
  for (int64_t i = 0; i < elements; ++i) {
    const float value =
        UniformFromBits(RandomBlock({seed, 0, 0, 0}, static_cast<uint32_t>(i))[0]) - 0.5f;
    if (dtype == DType::kF32) buffer.as<float>()[i] = value;
    if (dtype == DType::kBF16) buffer.as<BF16>()[i] = BF16::FromFloat(value);
  }
  return buffer;
}

// C = op(A) op(B) as a graph of one node.
class EngineGemm {
 public:
  EngineGemm(const Problem& p, DType dtype, Buffer& a, Buffer& b, Buffer& c)
      : graph_(ops::OpList()),
        executor_(graph_, kernels::CpuKernels(), {}, {.frozen_parameters = p.frozen}) {
    const auto left =
        graph_.AddInput("a", {dtype, p.transpose_a ? Shape({p.k, p.m}) : Shape({p.m, p.k})});
    const TensorType right_type{dtype, p.transpose_b ? Shape({p.n, p.k}) : Shape({p.k, p.n})};
    const auto right =
        p.frozen ? graph_.AddParameter("b", right_type) : graph_.AddInput("b", right_type);
    const auto product =
        graph_
            .Add("matmul", {left, right},
                 {{"transpose_a", int64_t{p.transpose_a}}, {"transpose_b", int64_t{p.transpose_b}}})
            .value();
    if (!graph_.AddOutput(product, true).ok()) std::abort();
    plan_ = executor_.PlanForBatch(1).value();
    plan_->Bind(left, a.data());
    plan_->Bind(right, b.data());
    plan_->Bind(product, c.data());
    plan_->RunPrologue({});
  }
  void Run() { plan_->Run({}); }
  std::string kernel() const { return plan_->KernelNames().front(); }

 private:
  graph::Graph graph_;
  graph::Executor executor_;
  graph::Plan* plan_ = nullptr;
};

// The same as one oneDNN primitive over the whole matrices, on OpenMP's threads.
class BareGemm {
 public:
  BareGemm(const Problem& p, DType dtype, Buffer& a, Buffer& b, Buffer& c)
      : engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {
    using Dims = dnnl::memory::dims;
    const auto type =
        dtype == DType::kF32 ? dnnl::memory::data_type::f32 : dnnl::memory::data_type::bf16;
    const dnnl::memory::desc a_desc({p.m, p.k}, type, p.transpose_a ? Dims{1, p.m} : Dims{p.k, 1});
    const dnnl::memory::desc plain({p.k, p.n}, type, p.transpose_b ? Dims{1, p.k} : Dims{p.n, 1});
    const dnnl::memory::desc packed({p.k, p.n}, type, dnnl::memory::format_tag::any);
    const dnnl::memory::desc c_desc({p.m, p.n}, dnnl::memory::data_type::f32, Dims{p.n, 1});
    const dnnl::matmul::primitive_desc descriptor({a_desc, p.frozen ? packed : plain, c_desc},
                                                  engine_);
    primitive_ = dnnl::matmul(descriptor);
    dnnl::memory weights(plain, engine_, b.data());
    if (p.frozen) {
      dnnl::memory to(descriptor.weights_desc(), engine_);
      dnnl::reorder(weights, to).execute(stream_, weights, to);
      stream_.wait();
      weights = to;
    }
    arguments_ = {{DNNL_ARG_SRC, dnnl::memory(a_desc, engine_, a.data())},
                  {DNNL_ARG_WEIGHTS, weights},
                  {DNNL_ARG_DST, dnnl::memory(c_desc, engine_, c.data())}};
  }
  void Run() {
    primitive_.execute(stream_, arguments_);
    stream_.wait();
  }

 private:
  dnnl::engine engine_;
  dnnl::stream stream_;
  dnnl::matmul primitive_;
  std::unordered_map<int, dnnl::memory> arguments_;
};

double SecondsPerRun(auto& gemm, int repeats) {
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < repeats; ++i) gemm.Run();
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  return elapsed.count() / repeats;
}

bool Agree(const Buffer& a, const Buffer& b, int64_t elements, int64_t k) {
  const auto* x = static_cast<const float*>(a.data());
  const auto* y = static_cast<const float*>(b.data());
  const double bound = 1e-5 * std::sqrt(static_cast<double>(k)) + 1e-4;
  for (int64_t i = 0; i < elements; ++i) {
    if (!(std::abs(x[i] - y[i]) <= bound)) return false;
  }
  return true;
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// Of the products of a GPT's step, in milliseconds.
struct StepTotal {
  double ours = 0, theirs = 0;
};

bool Compare(const Problem& p, DType dtype, int rounds, StepTotal& step) {
  Buffer a = RandomMatrix(p.m * p.k, dtype, 1);
  Buffer b = RandomMatrix(p.k * p.n, dtype, 2);
  Buffer ours(p.m * p.n * 4);
  Buffer theirs(p.m * p.n * 4);
  // oneDNN reads OpenMP's setting when a primitive is made and when it runs.
  const int threads = ThreadPool::Compute().threads();
  EngineGemm engine(p, dtype, a, b, ours);
  engine.Run();
  omp_set_num_threads(threads);
  BareGemm bare(p, dtype, a, b, theirs);
  bare.Run();
  if (!Agree(ours, theirs, p.m * p.n, p.k)) {
    std::printf("%-32s WRONG RESULT\n", p.what);
    return false;
  }
  const double flops = 2.0 * static_cast<double>(p.m * p.k * p.n);
  const int repeats = std::max(1, static_cast<int>(1e9 / flops));
  std::vector<double> our_seconds, their_seconds, ratios;
  for (int round = 0; round < rounds; ++round) {
    omp_set_num_threads(1);  // the engine's own choice on this thread
    our_seconds.push_back(SecondsPerRun(engine, repeats));
    omp_set_num_threads(threads);
    their_seconds.push_back(SecondsPerRun(bare, repeats));
    ratios.push_back(our_seconds.back() / their_seconds.back());
  }
  std::sort(ratios.begin(), ratios.end());
  step.ours += 1e3 * p.in_gpt_step * Median(our_seconds);
  step.theirs += 1e3 * p.in_gpt_step * Median(their_seconds);
  std::printf(
      "%-32s %-4s %5ld x %4ld x %4ld  ours %8.1f us (%6.1f GF/s)  oneDNN %8.1f us (%6.1f "
      "GF/s)  ratio %.2f [%.2f..%.2f]  %s\n",
      p.what, std::string(DTypeName(dtype)).c_str(), p.m, p.k, p.n, 1e6 * Median(our_seconds),
      1e-9 * flops / Median(our_seconds), 1e6 * Median(their_seconds),
      1e-9 * flops / Median(their_seconds), ratios[ratios.size() / 2], ratios.front(),
      ratios.back(), engine.kernel().c_str());
  return true;
}

}  // namespace
}  // namespace lepton

int main(int argc, char** argv) {
  using namespace lepton;
  const int rounds = argc > 1 ? std::max(1, std::atoi(argv[1])) : 15;
  if (argc > 2) ThreadPool::SetComputeThreads(std::atoi(argv[2]));
  std::printf(
      "threads: %d; ratio: time of the engine / time of bare oneDNN, median [min..max] of "
      "%d rounds\n",
      ThreadPool::Compute().threads(), rounds);
  bool right = true;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    StepTotal step;
    for (const Problem& problem : kProblems) {
      right = Compare(problem, dtype, rounds, step) && right;
    }
    std::printf("all products of a training step of the GPT, %s: ours %.1f ms, oneDNN %.1f ms\n",
                std::string(DTypeName(dtype)).c_str(), step.ours, step.theirs);
  }
  return right ? 0 : 1;
}
