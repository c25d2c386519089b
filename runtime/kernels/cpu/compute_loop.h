// How kernels use several threads: ThreadPool::Compute() with denormal numbers switched off.
//
// Numbers below 1e-38 count as 0 inside the loop, on every thread alike, so the bits do not depend
// on the number of threads. Training makes many of them (moments of weights that get no gradient
// any more shrink for ever), and arithmetic on them is a hundred times slower. Threads: as
// ThreadPool::ParallelFor.
#pragma once

#include <pmmintrin.h>
#include <xmmintrin.h>

#include <cstdint>

#include "runtime/base/thread_pool.h"

namespace lepton::kernels {

class FlushDenormals {
 public:
  FlushDenormals() : saved_(_mm_getcsr()) {
    _mm_setcsr(saved_ | _MM_FLUSH_ZERO_ON | _MM_DENORMALS_ZERO_ON);
  }
  ~FlushDenormals() { _mm_setcsr(saved_); }
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  const unsigned int saved_;
};

// body(begin, end) over [0, count) in ranges of at least `grain`.
template <typename Body>
void ComputeLoop(int64_t count, int64_t grain, const Body& body) {
  ThreadPool::Compute().ParallelFor(count, grain, [&](int64_t begin, int64_t end) {
    const FlushDenormals flush;
    body(begin, end);
  });
}

}  // namespace lepton::kernels
