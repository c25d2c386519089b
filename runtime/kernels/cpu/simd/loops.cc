#include "runtime/kernels/cpu/simd/loops.h"

#include "runtime/kernels/cpu/cpu_isa.h"

namespace lepton::kernels::simd {

bool CpuHasAvx512() {
  return AllowedCpuIsa() >= CpuIsa::kAvx512 && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}

bool CpuHasAvx512Bf16() {
  return CpuHasAvx512() && __builtin_cpu_supports("avx512bf16");
}

bool CpuHasAvx2() {
  return AllowedCpuIsa() >= CpuIsa::kAvx2 && __builtin_cpu_supports("avx2") &&
         __builtin_cpu_supports("fma");
}

const Loops& BestLoops() {
  static const Loops& best = CpuHasAvx512() ? Avx512Loops()
                             : CpuHasAvx2() ? Avx2Loops()
                                            : BaselineLoops();
  return best;
}

}  // namespace lepton::kernels::simd

namespace lepton::kernels {

void ApplySgd(const SgdUpdate& update, int64_t count, float* weights, const float* gradients,
              float* velocity) {
  simd::BestLoops().sgd(update, count, weights, gradients, velocity);
}

void ApplyAdam(const AdamUpdate& update, int64_t count, float* weights, const float* gradients,
               float* first, float* second) {
  simd::BestLoops().adam(update, count, weights, gradients, first, second);
}

void FillUniform(const RandomKey& key, int64_t first_block, int64_t count, float bound, float* y) {
  simd::BestLoops().uniform(first_block, count, key, bound, y);
}

void FillNormal(const RandomKey& key, int64_t first_block, int64_t count, double deviation,
                float* y) {
  simd::BestLoops().normal(first_block, count, key, deviation, y);
}

double SumOfSquares(int64_t count, const float* values) {
  return simd::BestLoops().sum_of_squares(count, values);
}

}  // namespace lepton::kernels
