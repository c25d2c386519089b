#include "runtime/kernels/cpu/simd/loops_body.h"

namespace lepton::kernels::simd {

// Defined in loops_avx512_bf16.cc.
void UseBf16Instructions(Loops& loops);

const Loops& Avx512Loops() {
  static const Loops loops = [] {
    Loops made = MakeLoops("avx512");
    if (CpuHasAvx512Bf16()) UseBf16Instructions(made);
    return made;
  }();
  return loops;
}

}  // namespace lepton::kernels::simd
