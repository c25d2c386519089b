#include "runtime/kernels/cpu/simd/loops_body.h"

namespace lepton::kernels::simd {

const Loops& Avx2Loops() {
  static constexpr Loops loops = MakeLoops("avx2");
  return loops;
}

}  // namespace lepton::kernels::simd
