#include "runtime/kernels/cuda/device/pointwise.h"

#include "runtime/kernels/cuda/device/code.cuh"
#include "runtime/kernels/cuda/device/functions.cuh"

namespace lepton::kernels::cuda {
namespace {

constexpr int kPointwiseThreads = 256;
constexpr int kEach = 4;  // elements of a thread

__device__ void LoadFour(const PointwiseStep& step, int64_t first, int count, float* y) {
  if (step.bf16) {
    const Bf16* data = static_cast<const Bf16*>(step.data) + first;
    if (count == kEach && reinterpret_cast<uintptr_t>(data) % sizeof(uint2) == 0) {
      const uint2 words = *reinterpret_cast<const uint2*>(data);
      y[0] = __uint_as_float(words.x << 16);
      y[1] = __uint_as_float(words.x & 0xffff0000u);
      y[2] = __uint_as_float(words.y << 16);
      y[3] = __uint_as_float(words.y & 0xffff0000u);
      return;
    }
    for (int i = 0; i < count; ++i) y[i] = ToFloat(data[i]);
    return;
  }
  const float* data = static_cast<const float*>(step.data) + first;
  if (count == kEach && reinterpret_cast<uintptr_t>(data) % sizeof(float4) == 0) {
    const float4 words = *reinterpret_cast<const float4*>(data);
    y[0] = words.x;
    y[1] = words.y;
    y[2] = words.z;
    y[3] = words.w;
    return;
  }
  for (int i = 0; i < count; ++i) y[i] = data[i];
}

__device__ void StoreFour(const PointwiseStep& step, int64_t first, int count, const float* a) {
  if (step.bf16) {
    Bf16* data = static_cast<Bf16*>(step.data) + first;
    if (count == kEach && reinterpret_cast<uintptr_t>(data) % sizeof(uint2) == 0) {
      uint2 words;
      words.x = RoundToBf16(a[0]).bits | static_cast<uint32_t>(RoundToBf16(a[1]).bits) << 16;
      words.y = RoundToBf16(a[2]).bits | static_cast<uint32_t>(RoundToBf16(a[3]).bits) << 16;
      *reinterpret_cast<uint2*>(data) = words;
      return;
    }
    for (int i = 0; i < count; ++i) data[i] = RoundToBf16(a[i]);
    return;
  }
  float* data = static_cast<float*>(step.data) + first;
  if (count == kEach && reinterpret_cast<uintptr_t>(data) % sizeof(float4) == 0) {
    *reinterpret_cast<float4*>(data) = float4{a[0], a[1], a[2], a[3]};
    return;
  }
  for (int i = 0; i < count; ++i) data[i] = a[i];
}

__device__ void LoadRow(const PointwiseStep& step, int64_t first, int count, int64_t width,
                        float* y) {
  const Floats data{step.data, step.bf16};
  int64_t column = first % width;
  for (int i = 0; i < count; ++i) {
    y[i] = data[column];
    column = column + 1 == width ? 0 : column + 1;
  }
}

__device__ void Drop(const PointwiseStep& step, const graph::DeviceRunState& run, int64_t first,
                     const float* a, float* y) {
  uint32_t bits[kEach];
  RandomBits(run, step.stream, static_cast<uint32_t>(first / kEach), bits);
  for (int i = 0; i < kEach; ++i) {
    const float uniform = static_cast<float>(bits[i] >> 8) * (1.0f / 16777216.0f);
    y[i] = uniform >= step.parameter ? a[i] * step.keep : 0.0f;
  }
}

__global__ void Pointwise(const PointwiseProgram program) {
  const int64_t first = GlobalIndex() * kEach;
  if (first >= program.total) return;
  const int64_t left = program.total - first;
  const int count = left < kEach ? static_cast<int>(left) : kEach;
  float registers[PointwiseProgram::kRegisters][kEach] = {};
  for (int s = 0; s < program.steps; ++s) {
    const PointwiseStep& step = program.step[s];
    const float* a = registers[step.a];
    float* y = registers[step.y];
    switch (step.code) {
      case PointwiseCode::kLoad:
        LoadFour(step, first, count, y);
        break;
      case PointwiseCode::kLoadRow:
        LoadRow(step, first, count, program.width, y);
        break;
      case PointwiseCode::kLoadScalar: {
        const float value = Floats{step.data, step.bf16}[0];
        for (int i = 0; i < kEach; ++i) y[i] = value;
        break;
      }
      case PointwiseCode::kStore:
        StoreFour(step, first, count, a);
        break;
      case PointwiseCode::kRound:
        for (int i = 0; i < kEach; ++i) y[i] = ToFloat(RoundToBf16(a[i]));
        break;
      case PointwiseCode::kDropout:
        Drop(step, *program.run, first, a, y);
        break;
      default: {
        const float* b = registers[step.b];
        for (int i = 0; i < kEach; ++i) y[i] = Apply(step.code, a[i], b[i], step.parameter);
      }
    }
  }
}

__global__ void Broadcast(const BroadcastArguments arguments) {
  const int64_t index = GlobalIndex();
  if (index >= arguments.total) return;
  int64_t rest = index, a = 0, b = 0;
  for (int axis = arguments.axes - 1; axis >= 0; --axis) {
    const int64_t at = rest % arguments.extents[axis];
    rest /= arguments.extents[axis];
    a += at * arguments.strides_a[axis];
    b += at * arguments.strides_b[axis];
  }
  const float value_a = Floats{arguments.a, arguments.bf16_a}[a];
  const float value_b = Floats{arguments.b, arguments.bf16_b}[b];
  MutableFloats{arguments.y, arguments.bf16_y}.Set(index,
                                                   Apply(arguments.code, value_a, value_b, 0));
}

}  // namespace

void RunPointwise(const PointwiseProgram& program, Stream stream) {
  const int64_t threads = Blocks(program.total, kEach);
  LaunchFlat(Pointwise, Grid{Blocks(threads, kPointwiseThreads)}, kPointwiseThreads, stream,
             program);
}

void RunBroadcast(const BroadcastArguments& arguments, Stream stream) {
  LaunchFlat(Broadcast, Grid{Blocks(arguments.total, kPointwiseThreads)}, kPointwiseThreads, stream,
             arguments);
}

}  // namespace lepton::kernels::cuda
