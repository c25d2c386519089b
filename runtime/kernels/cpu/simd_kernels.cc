#include "runtime/kernels/cpu/simd_kernels.h"

#include <algorithm>

#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/kernels/cpu/dropout_key.h"
#include "runtime/kernels/cpu/function_kernel.h"
#include "runtime/kernels/cpu/simd/loops.h"

namespace lepton::kernels {
namespace {

using simd::Loops;
using LoopSet = const Loops& (*)();

constexpr int64_t kGrain = 1 << 15;  // elements for which another thread is worth waking
constexpr int64_t kColumnTile = 64;  // columns that one thread takes at a time

void ForElements(int64_t count, const auto& body) {
  ComputeLoop(count, kGrain, [&](int64_t begin, int64_t end) { body(begin, end - begin); });
}

void ForRows(int64_t rows, int64_t n, const auto& body) {
  ComputeLoop(rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, n)),
              [&](int64_t begin, int64_t end) { body(begin, end - begin); });
}

void ForColumns(int64_t rows, int64_t n, const auto& body) {
  const int64_t tiles = (n + kColumnTile - 1) / kColumnTile;
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, rows * kColumnTile));
  ComputeLoop(tiles, grain, [&](int64_t begin, int64_t end) {
    body(begin * kColumnTile, std::min(n, end * kColumnTile));
  });
}

template <LoopSet loops, auto member>
void RunUnary(const KernelContext& context) {
  const float* x = context.input(0).as<float>();
  float* y = context.output(0).as<float>();
  ForElements(context.input(0).elements(),
              [&](int64_t i, int64_t count) { (loops().*member)(count, x + i, y + i); });
}

template <LoopSet loops, auto member>
void RunBinary(const KernelContext& context) {
  const float* a = context.input(0).as<float>();
  const float* b = context.input(1).as<float>();
  float* y = context.output(0).as<float>();
  ForElements(context.input(0).elements(),
              [&](int64_t i, int64_t count) { (loops().*member)(count, a + i, b + i, y + i); });
}

template <LoopSet loops>
void RunScale(const KernelContext& context) {
  const auto factor = static_cast<float>(context.attributes().Float("factor", 1));
  const float* x = context.input(0).as<float>();
  float* y = context.output(0).as<float>();
  ForElements(context.input(0).elements(),
              [&](int64_t i, int64_t count) { loops().scale(count, factor, x + i, y + i); });
}

template <LoopSet loops>
void RunNarrow(const KernelContext& context) {
  const float* x = context.input(0).as<float>();
  auto* y = context.output(0).as<uint16_t>();
  ForElements(context.input(0).elements(),
              [&](int64_t i, int64_t count) { loops().to_bf16(count, x + i, y + i); });
}

template <LoopSet loops>
void RunWiden(const KernelContext& context) {
  const auto* x = context.input(0).as<uint16_t>();
  float* y = context.output(0).as<float>();
  ForElements(context.input(0).elements(),
              [&](int64_t i, int64_t count) { loops().to_f32(count, x + i, y + i); });
}

template <LoopSet loops>
void RunBiasAdd(const KernelContext& context) {
  const int64_t n = context.input(0).shape().back();
  const float* x = context.input(0).as<float>();
  const float* bias = context.input(1).as<float>();
  float* y = context.output(0).as<float>();
  ForRows(context.input(0).shape().rows(), n, [&](int64_t row, int64_t rows) {
    loops().bias_add(rows, n, x + row * n, bias, y + row * n);
  });
}

template <LoopSet loops>
void RunDropout(const KernelContext& context) {
  const float* x = context.input(0).as<float>();
  float* y = context.output(0).as<float>();
  const int64_t total = context.input(0).elements();
  const double rate = context.attributes().Float("rate");
  const auto stream = static_cast<uint32_t>(context.attributes().Int("stream"));
  const graph::RunState& run = context.run();
  ComputeLoop((total + 3) / 4, kGrain / 16, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * 4;
    loops().dropout(begin, std::min(total, end * 4) - first, DropoutKey(run, stream),
                    static_cast<float>(rate), static_cast<float>(1 / (1 - rate)), x + first,
                    y + first);
  });
}

// Over the first axis of a matrix, or over the last axis of anything.
bool CanReduce(const KernelRequest& request) {
  const int64_t axis = request.attributes->Int("axis");
  const int rank = request.inputs[0].shape.rank();
  return axis == rank - 1 || (rank == 2 && axis == 0);
}

template <LoopSet loops>
void RunReduce(const KernelContext& context) {
  const Shape& shape = context.input(0).shape();
  const int64_t axis = context.attributes().Int("axis");
  const bool mean = context.attributes().Text("kind") == "mean";
  const float factor = mean ? 1.0f / static_cast<float>(shape[static_cast<int>(axis)]) : 1.0f;
  const float* x = context.input(0).as<float>();
  float* y = context.output(0).as<float>();
  const int64_t rows = shape.rows();
  const int64_t n = shape.back();
  if (axis == shape.rank() - 1) {
    ForRows(rows, n, [&](int64_t row, int64_t count) {
      loops().row_sum(count, n, factor, x + row * n, y + row);
    });
    return;
  }
  ForColumns(rows, n, [&](int64_t begin, int64_t end) {
    loops().column_sum(rows, n, begin, end, factor, x, y);
  });
}

template <LoopSet loops, auto member>
void RunRows(const KernelContext& context) {
  const int64_t n = context.input(0).shape().back();
  ForRows(context.input(0).shape().rows(), n, [&](int64_t row, int64_t rows) {
    (loops().*member)(rows, n, context.input(0).as<float>() + row * n,
                      context.output(0).as<float>() + row * n);
  });
}

template <LoopSet loops, auto member>
void RunRowsGrad(const KernelContext& context) {
  const int64_t n = context.input(0).shape().back();
  ForRows(context.input(0).shape().rows(), n, [&](int64_t row, int64_t rows) {
    (loops().*member)(rows, n, context.input(0).as<float>() + row * n,
                      context.input(1).as<float>() + row * n,
                      context.output(0).as<float>() + row * n);
  });
}

template <LoopSet loops>
void RunCrossEntropy(const KernelContext& context) {
  const int64_t n = context.input(0).shape().back();
  ForRows(context.input(0).shape().rows(), n, [&](int64_t row, int64_t rows) {
    loops().cross_entropy(rows, n, context.input(0).as<float>() + row * n,
                          context.input(1).as<int32_t>() + row,
                          context.output(0).as<float>() + row);
  });
}

template <LoopSet loops>
void RunCrossEntropyGrad(const KernelContext& context) {
  const int64_t n = context.input(0).shape().back();
  ForRows(context.input(0).shape().rows(), n, [&](int64_t row, int64_t rows) {
    loops().cross_entropy_grad(
        rows, n, context.input(0).as<float>() + row * n, context.input(1).as<int32_t>() + row,
        context.input(2).as<float>() + row, context.output(0).as<float>() + row * n);
  });
}

// The list of one instruction set.
template <LoopSet loops, bool (*cpu_has)()>
void Append(std::string_view name, std::vector<graph::KernelEntry>& entries) {
  const auto can_run = [](const KernelRequest&) { return cpu_has(); };
  const auto can_reduce = [](const KernelRequest& r) { return cpu_has() && CanReduce(r); };
  const auto can_run_alike = [](const KernelRequest& r) {
    return cpu_has() && r.inputs[0].shape == r.inputs[1].shape;
  };
  const auto add = [&]<void (*function)(const KernelContext&)>(std::string_view op,
                                                               DType dtype = DType::kF32) {
    entries.push_back({op, dtype, name, can_run, &FunctionKernel<function>::Create});
  };
  entries.push_back({"add", DType::kF32, name, can_run_alike,
                     &FunctionKernel<RunBinary<loops, &Loops::add>>::Create});
  add.template operator()<RunBiasAdd<loops>>("bias_add");
  add.template operator()<RunNarrow<loops>>("cast");
  add.template operator()<RunWiden<loops>>("cast", DType::kBF16);
  add.template operator()<RunCrossEntropy<loops>>("cross_entropy");
  add.template operator()<RunCrossEntropyGrad<loops>>("cross_entropy_grad");
  add.template operator()<RunDropout<loops>>("dropout");
  add.template operator()<RunUnary<loops, &Loops::gelu>>("gelu");
  add.template operator()<RunBinary<loops, &Loops::gelu_grad>>("gelu_grad");
  add.template operator()<RunUnary<loops, &Loops::gelu_tanh>>("gelu_tanh");
  add.template operator()<RunBinary<loops, &Loops::gelu_tanh_grad>>("gelu_tanh_grad");
  add.template operator()<RunRows<loops, &Loops::log_softmax>>("log_softmax");
  add.template operator()<RunRowsGrad<loops, &Loops::log_softmax_grad>>("log_softmax_grad");
  entries.push_back({"mul", DType::kF32, name, can_run_alike,
                     &FunctionKernel<RunBinary<loops, &Loops::mul>>::Create});
  entries.push_back(
      {"reduce", DType::kF32, name, can_reduce, &FunctionKernel<RunReduce<loops>>::Create});
  add.template operator()<RunUnary<loops, &Loops::relu>>("relu");
  add.template operator()<RunBinary<loops, &Loops::relu_grad>>("relu_grad");
  add.template operator()<RunScale<loops>>("scale");
  add.template operator()<RunUnary<loops, &Loops::sigmoid>>("sigmoid");
  add.template operator()<RunBinary<loops, &Loops::sigmoid_grad>>("sigmoid_grad");
  add.template operator()<RunUnary<loops, &Loops::silu>>("silu");
  add.template operator()<RunBinary<loops, &Loops::silu_grad>>("silu_grad");
  add.template operator()<RunRows<loops, &Loops::softmax>>("softmax");
  add.template operator()<RunRowsGrad<loops, &Loops::softmax_grad>>("softmax_grad");
  add.template operator()<RunUnary<loops, &Loops::tanh>>("tanh");
  add.template operator()<RunBinary<loops, &Loops::tanh_grad>>("tanh_grad");
}

bool AnyCpu() {
  return true;
}

}  // namespace

std::vector<graph::KernelEntry> SimdKernels() {
  std::vector<graph::KernelEntry> entries;
  Append<&simd::Avx512Loops, &simd::CpuHasAvx512>("avx512", entries);
  Append<&simd::Avx2Loops, &simd::CpuHasAvx2>("avx2", entries);
  Append<&simd::BaselineLoops, &AnyCpu>("baseline", entries);
  return entries;
}

}  // namespace lepton::kernels
