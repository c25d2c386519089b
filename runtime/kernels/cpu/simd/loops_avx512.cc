#include "runtime/kernels/cpu/simd/loops_body.h"

namespace lepton::kernels::simd {

const Loops& Avx512Loops() {
  static constexpr Loops loops = MakeLoops("avx512");
  return loops;
}

}  // namespace lepton::kernels::simd
