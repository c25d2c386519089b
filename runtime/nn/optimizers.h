// Parameter updates over flat buffers, fused: one pass reads weights, gradients and state and
// writes weights and state. State of n parameters: sgd with momentum n (velocity), adam and adamw
// 2n (first moments, then second moments), sgd without momentum none. Threads: one caller; updates
// run on ThreadPool::Compute(). The bits do not depend on the number of threads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/base/status.h"
#include "runtime/nn/training_program.h"
#include "runtime/spec/job_spec.h"

namespace lepton::nn {

// kInvalidArgument names the field.
Status CheckOptimizer(const spec::OptimizerSpec& optimizer);

int64_t OptimizerStateSize(const spec::OptimizerSpec& optimizer, int64_t parameters);

// Elements [begin, end) that are updated alike.
struct UpdateRange {
  int64_t begin = 0;
  int64_t end = 0;
  bool decays = true;  // weight_decay is for them
};
// The trained parameters in as few ranges as optimizer.decay allows; they lie first in the buffers.
std::vector<UpdateRange> UpdateRanges(const spec::OptimizerSpec& optimizer,
                                      const std::vector<ParameterView>& parameters);

// One update, on the backend's device or, where it is null, on the host, with g = gradients *
// gradient_scale at rate `lr`; `step` is 0-based.
//   sgd:   g += weight_decay * w;  v = momentum * v + g;  w -= lr * v
//   adam:  g += weight_decay * w;  m, v = moments of g;   w -= lr * m^ / (sqrt(v^) + epsilon)
//   adamw: w -= lr * weight_decay * w, then adam with weight_decay 0 (Loshchilov and Hutter 2019)
void UpdateWeights(const spec::OptimizerSpec& optimizer, double lr, uint64_t step,
                   double gradient_scale, std::span<const UpdateRange> ranges,
                   std::span<float> weights, std::span<const float> gradients,
                   std::span<float> state, kernels::DeviceBackend* backend = nullptr);

// The same for elements [begin, begin + gradients.size()) alone: all but `ranges` are of that part.
// On the host.
void UpdatePart(const spec::OptimizerSpec& optimizer, double lr, uint64_t step,
                double gradient_scale, std::span<const UpdateRange> ranges, int64_t begin,
                std::span<float> weights, std::span<const float> gradients, std::span<float> state);

// GlobalNorm in parts: sums of squares of blocks of so many elements (the last may be shorter), and
// the norm of what all blocks' sums, in order, are of.
inline constexpr int64_t kNormBlock = 1 << 14;
std::vector<double> SquaresOfBlocks(std::span<const float> values);
double NormOfBlocks(std::span<const double> squares);

// The Euclidean norm of `values`, in double, summed in an order that depends on the size alone.
// Infinite or NaN when a value is.
double GlobalNorm(std::span<const float> values);

}  // namespace lepton::nn
