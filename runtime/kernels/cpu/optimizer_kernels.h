// The inner loops of the optimisers: element by element, so any split over threads gives the same
// bits. What each computes is in runtime/nn/optimizers.h. The widest vector code that the CPU has
// is chosen at run time; all give the same bits. Threads: pure functions of their arguments.
#pragma once

#include <cstdint>

namespace lepton::kernels {

struct SgdUpdate {
  float lr;
  float gradient_scale;
  float weight_decay;
  float momentum;
};
// `velocity` is null when momentum is 0.
void ApplySgd(const SgdUpdate& update, int64_t count, float* weights, const float* gradients,
              float* velocity);

struct AdamUpdate {
  float lr;  // divided by 1 - beta1^t already
  float gradient_scale;
  float weight_decay;  // adam's: added to the gradient
  float shrink;        // adamw's: 1 - lr * decay, multiplies the weight; 1 for adam
  float beta1;
  float beta2;
  float second_scale;  // 1 / sqrt(1 - beta2^t)
  float epsilon;
};
void ApplyAdam(const AdamUpdate& update, int64_t count, float* weights, const float* gradients,
               float* first, float* second);

// In double, in 16 interleaved sums.
double SumOfSquares(int64_t count, const float* values);

}  // namespace lepton::kernels
