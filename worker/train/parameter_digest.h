// A digest of numbers by their bits, for noticing that two ranks which must hold equal numbers do
// not. Not for strangers' data: it resists accidents, not intent.
// Threads: one caller; uses ThreadPool::Compute().
#pragma once

#include <cstdint>
#include <span>

#include "runtime/nn/training_program.h"

namespace lepton::worker {

// Equal bits give an equal digest, for any number of compute threads and any CPU. If one number
// differs, whatever its bits, the digests differ for certain; if several do, they are equal with
// a chance of about 2^-32 to 2^-64. Costs one pass over memory.
uint64_t DigestOf(std::span<const float> values);
// Of a program's weights, a tensor at a time, so that those that were never asked for as a whole
// are not.
uint64_t DigestOfWeights(nn::TrainingProgram& program);

}  // namespace lepton::worker
