// Optimisers and the norm of gradients, over flat buffers.
#pragma once

#include <cstdint>

#include "runtime/kernels/cpu/optimizer_kernels.h"
#include "runtime/kernels/cuda/stream.h"

namespace lepton::kernels::cuda {

void RunSgd(const SgdUpdate& update, int64_t count, float* weights, const float* gradients,
            float* velocity, Stream stream);
void RunAdam(const AdamUpdate& update, int64_t count, float* weights, const float* gradients,
             float* first, float* second, Stream stream);
void RunScale(int64_t count, float factor, float* values, Stream stream);
void RunMoveTowards(int64_t count, float momentum, float scale, const float* measured,
                    float* values, Stream stream);

// sums[0] becomes the sum of squares; sums: kSquareSums doubles.
inline constexpr int kSquareSums = 1 + 512;
void RunSumOfSquares(int64_t count, const float* values, double* sums, Stream stream);

}  // namespace lepton::kernels::cuda
