#define LEPTON_GEMM_F32_ROWS 12
#include "runtime/kernels/cpu/gemm/micro_body.h"

namespace lepton::kernels::gemm {

const Micro kF32Avx512 = LEPTON_GEMM_F32("avx512");
const Micro kBf16Avx512 = LEPTON_GEMM_BF16("avx512", false);
const Micro kPairsAvx512 = LEPTON_GEMM_BF16("avx512", true);

}  // namespace lepton::kernels::gemm
