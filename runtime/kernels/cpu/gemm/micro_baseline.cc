#define LEPTON_GEMM_F32_ROWS 6
#include "runtime/kernels/cpu/gemm/micro_body.h"

namespace lepton::kernels::gemm {

const Micro kF32Baseline = LEPTON_GEMM_F32("baseline");
const Micro kBf16Baseline = LEPTON_GEMM_BF16("baseline", false);
const Micro kPairsBaseline = LEPTON_GEMM_BF16("baseline", true);

}  // namespace lepton::kernels::gemm
