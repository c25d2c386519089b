// How much of this CPU's instruction sets kernels may use. LEPTON_CPU_ISA=baseline|avx2|avx512 says
// less than all: to see what another machine would do, and how fast. Threads: any.
#pragma once

#include <cstdint>

#include "runtime/base/status.h"

namespace lepton::kernels {

// Each has what those before it have. Tiles and what AVX-512 has been extended by go with it.
enum class CpuIsa : uint8_t { kBaseline, kAvx2, kAvx512 };

inline constexpr const char* kCpuIsaVariable = "LEPTON_CPU_ISA";

CpuIsa AllowedCpuIsa();
// Whether the variable, if it is set, names a set: INVALID_ARGUMENT if not. A process that
// computes asks before it begins.
Status CheckCpuIsa();

}  // namespace lepton::kernels
