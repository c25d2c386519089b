// The functions of pointwise nodes, as device code. What each computes is in runtime/ops and, in
// double, in kernels/cpu/reference_elementwise.cc.
#pragma once

#include "runtime/kernels/cuda/device/code.cuh"
#include "runtime/kernels/cuda/device/pointwise.h"

namespace lepton::kernels::cuda {

constexpr float kInverseSqrt2 = 0.70710678118654752440f;
constexpr float kInverseSqrt2Pi = 0.39894228040143267794f;
constexpr float kSqrt2OverPi = 0.79788456080286535588f;

__device__ inline float Sigmoid(float x) {
  return 1.0f / (1.0f + expf(-x));
}

__device__ inline float GeluGrad(float x, float dy) {
  const float distribution = 0.5f * (1.0f + erff(x * kInverseSqrt2));
  return dy * (distribution + x * kInverseSqrt2Pi * expf(-0.5f * x * x));
}

__device__ inline float GeluTanhGrad(float x, float dy) {
  const float t = tanhf(kSqrt2OverPi * (x + 0.044715f * x * x * x));
  const float slope = kSqrt2OverPi * (1.0f + 3.0f * 0.044715f * x * x);
  return dy * (0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * slope);
}

__device__ inline float Apply(PointwiseCode code, float a, float b, float parameter) {
  switch (code) {
    case PointwiseCode::kAdd:
      return a + b;
    case PointwiseCode::kSub:
      return a - b;
    case PointwiseCode::kMul:
      return a * b;
    case PointwiseCode::kDiv:
      return a / b;
    case PointwiseCode::kScale:
      return a * parameter;
    case PointwiseCode::kRelu:
      return a > 0 || a != a ? a : 0.0f;
    case PointwiseCode::kReluGrad:
      return a > 0 ? b : 0.0f;
    case PointwiseCode::kGelu:
      return 0.5f * a * (1.0f + erff(a * kInverseSqrt2));
    case PointwiseCode::kGeluGrad:
      return GeluGrad(a, b);
    case PointwiseCode::kGeluTanh:
      return 0.5f * a * (1.0f + tanhf(kSqrt2OverPi * (a + 0.044715f * a * a * a)));
    case PointwiseCode::kGeluTanhGrad:
      return GeluTanhGrad(a, b);
    case PointwiseCode::kSilu:
      return a * Sigmoid(a);
    case PointwiseCode::kSiluGrad: {
      const float s = Sigmoid(a);
      return b * s * (1.0f + a * (1.0f - s));
    }
    case PointwiseCode::kTanh:
      return tanhf(a);
    case PointwiseCode::kTanhGrad:
      return b * (1.0f - a * a);
    case PointwiseCode::kSigmoid:
      return Sigmoid(a);
    case PointwiseCode::kSigmoidGrad:
      return b * a * (1.0f - a);
    default:
      return a;
  }
}

// Philox 4x32-10, block `block` of the key: the numbers of runtime/tensor/counter_random.h.
__device__ inline void RandomBits(const graph::DeviceRunState& run, uint32_t stream, uint32_t block,
                                  uint32_t bits[4]) {
  uint32_t c0 = block, c1 = stream, c2 = static_cast<uint32_t>(run.step);
  uint32_t c3 =
      static_cast<uint32_t>(run.shard) ^ (static_cast<uint32_t>(run.step >> 32) * 0x9E3779B1u);
  uint32_t key0 = static_cast<uint32_t>(run.seed);
  uint32_t key1 = static_cast<uint32_t>(run.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * c0;
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ key0;
    c1 = static_cast<uint32_t>(product1);
    c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ key1;
    c3 = static_cast<uint32_t>(product0);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  bits[0] = c0;
  bits[1] = c1;
  bits[2] = c2;
  bits[3] = c3;
}

}  // namespace lepton::kernels::cuda
