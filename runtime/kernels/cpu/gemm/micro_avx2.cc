#define LEPTON_GEMM_F32_ROWS 6
#include "runtime/kernels/cpu/gemm/micro_body.h"

namespace lepton::kernels::gemm {

const Micro kF32Avx2 = LEPTON_GEMM_F32("avx2");
const Micro kBf16Avx2 = LEPTON_GEMM_BF16("avx2", false);
const Micro kPairsAvx2 = LEPTON_GEMM_BF16("avx2", true);

}  // namespace lepton::kernels::gemm
