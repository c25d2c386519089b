// A chain of pointwise nodes as one kernel: each thread takes four neighbouring elements through
// all steps, so that what lies between the nodes stays in registers. Plain types: glue and device
// code share them.
#pragma once

#include <cstdint>

#include "runtime/graph/device_run_state.h"
#include "runtime/kernels/cuda/stream.h"

namespace lepton::kernels::cuda {

enum class PointwiseCode : uint8_t {
  kLoad,        // y = data[i]
  kLoadRow,     // y = data[i % width]
  kLoadScalar,  // y = data[0]
  kStore,       // data[i] = a
  kRound,       // y = a rounded to bf16
  kDropout,     // parameter: rate; keep: 1 / (1 - rate)
  kAdd,         // from here on y = f(a, b)
  kSub,
  kMul,
  kDiv,
  kScale,  // parameter
  kRelu,
  kReluGrad,
  kGelu,
  kGeluGrad,
  kGeluTanh,
  kGeluTanhGrad,
  kSilu,
  kSiluGrad,
  kTanh,
  kTanhGrad,
  kSigmoid,
  kSigmoidGrad,
};

struct PointwiseStep {
  PointwiseCode code;
  uint8_t a = 0, b = 0, y = 0;  // registers
  bool bf16 = false;            // of data
  uint32_t stream = 0;          // dropout's
  float parameter = 0, keep = 0;
  void* data = nullptr;
};

// A kernel's argument, so below 4 KiB.
struct PointwiseProgram {
  static constexpr int kSteps = 64;
  static constexpr int kRegisters = 12;
  int steps = 0;
  int64_t total = 0;  // elements
  int64_t width = 1;  // of a row
  const graph::DeviceRunState* run = nullptr;
  PointwiseStep step[kSteps];
};

void RunPointwise(const PointwiseProgram& program, Stream stream);

// y [extents] = code(a, b), where a and b are walked with strides that may be 0.
struct BroadcastArguments {
  static constexpr int kAxes = 6;
  int axes = 0;
  int64_t extents[kAxes] = {};
  int64_t strides_a[kAxes] = {};
  int64_t strides_b[kAxes] = {};
  int64_t total = 0;
  PointwiseCode code = PointwiseCode::kAdd;
  const void* a = nullptr;
  const void* b = nullptr;
  void* y = nullptr;
  bool bf16_a = false, bf16_b = false, bf16_y = false;
};
void RunBroadcast(const BroadcastArguments& arguments, Stream stream);

}  // namespace lepton::kernels::cuda
