#define LEPTON_GEMM_F32_ROWS 4
#include "runtime/kernels/cpu/gemm/micro_body.h"

namespace lepton::kernels::gemm {

const Micro kF32Avx2 = LEPTON_GEMM_F32("avx2");
const Micro kBf16Avx2 = LEPTON_GEMM_BF16("avx2");

}  // namespace lepton::kernels::gemm
