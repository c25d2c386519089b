#include "runtime/kernels/cpu/simd/loops_body.h"

namespace lepton::kernels::simd {

const Loops& BaselineLoops() {
  static constexpr Loops loops = MakeLoops("baseline");
  return loops;
}

}  // namespace lepton::kernels::simd
