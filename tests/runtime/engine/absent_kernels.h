// Which kernels of the list this CPU cannot show. Threads: pure functions.
#pragma once

#include <string>

#include "runtime/kernels/cpu/bf16_sums.h"
#include "runtime/kernels/cpu/gemm/micro.h"
#include "runtime/kernels/cpu/simd/loops.h"
#include "runtime/kernels/kernel_list_cpu.h"

namespace lepton::engine_test {

// Why no case can meet the kernel here; "" where one must.
inline std::string ReasonToSkip(const graph::KernelEntry& entry) {
  using kernels::Bf16Sums;
  const std::string_view name = entry.implementation;
  if (name == "avx512" && !kernels::simd::CpuHasAvx512()) return "this CPU has no AVX-512";
  if ((name == "avx2" || name == "winograd") && !kernels::simd::CpuHasAvx2()) {
    return "this CPU has no AVX2";
  }
  if (name == "winograd" && entry.dtype == DType::kBF16 &&
      kernels::CurrentBf16Sums() != Bf16Sums::kPairs) {
    return "this CPU does not add bf16 in pairs";
  }
  const bool moves_pixels = name == "shifted" && entry.op != "conv2d_weight_grad";
  if (moves_pixels && kernels::gemm::Bf16Micro().multiply_shifted == nullptr) {
    return "this CPU has no AMX";
  }
  // Each of its functions is met in bf16, but for bias_add, which follows products there.
  if (name == "pointwise" && entry.dtype == DType::kF32) {
    return "takes several nodes at once: fusion_test.cc";
  }
  return "";
}

}  // namespace lepton::engine_test
