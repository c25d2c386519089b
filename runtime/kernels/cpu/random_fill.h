// Many random numbers at once: those of runtime/tensor/counter_random.h, so that a number depends
// on its key and its place alone. The same bits on every CPU: logarithm, sine and cosine are our
// own polynomials in double. Threads: pure functions of their arguments.
#pragma once

#include <cstdint>

#include "runtime/tensor/counter_random.h"

namespace lepton::kernels {

// The numbers 4 * first_block .. 4 * first_block + count - 1 of the key.
// Uniform in [-bound, bound), 24 bits.
void FillUniform(const RandomKey& key, int64_t first_block, int64_t count, float bound, float* y);
// Normal around 0 (Box and Muller 1958: each pair of bits gives a pair of numbers).
void FillNormal(const RandomKey& key, int64_t first_block, int64_t count, double deviation,
                float* y);

}  // namespace lepton::kernels
