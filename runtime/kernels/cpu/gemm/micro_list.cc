#include <asm/prctl.h>
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/kernels/cpu/gemm/micro.h"
#include "runtime/kernels/cpu/simd/loops.h"

namespace lepton::kernels::gemm {
namespace {

// Linux gives a process the state of tiles on request (Documentation/x86/xstate.rst).
constexpr int kRequestFeature = 0x1023;  // ARCH_REQ_XCOMP_PERM
constexpr int kTileData = 18;

// CPUID leaf 7, EDX.
bool HasTilesFor(int feature) {
  constexpr int kTiles = 24;
  unsigned int a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  return (d >> kTiles & 1) != 0 && (d >> feature & 1) != 0 && simd::CpuHasAvx512() &&
         ::syscall(SYS_arch_prctl, kRequestFeature, kTileData) == 0;
}

}  // namespace

bool CpuHasAmx() {
  static const bool has = HasTilesFor(22);
  return has;
}

bool CpuHasAmxInt8() {
  static const bool has = HasTilesFor(25);
  return has;
}

bool CpuHasVnni() {
  return simd::CpuHasAvx512() && __builtin_cpu_supports("avx512vnni");
}

bool CpuHasFma() {
  return simd::CpuHasAvx2();
}

MicroList F32Micros() {
  MicroList list{};
  if (simd::CpuHasAvx512()) list.micros[list.count++] = &kF32Avx512;
  if (CpuHasFma()) list.micros[list.count++] = &kF32Avx2;
  list.micros[list.count++] = &kF32Baseline;
  return list;
}

MicroList Bf16Micros(Bf16Sums sums) {
  MicroList list{};
  const bool pairs = sums == Bf16Sums::kPairs;
  if (pairs && simd::CpuHasAvx512Bf16()) list.micros[list.count++] = &kPairsAvx512Bf16;
  if (!pairs && CpuHasAmx()) list.micros[list.count++] = &kBf16Amx;
  if (simd::CpuHasAvx512()) list.micros[list.count++] = pairs ? &kPairsAvx512 : &kBf16Avx512;
  if (CpuHasFma()) list.micros[list.count++] = pairs ? &kPairsAvx2 : &kBf16Avx2;
  list.micros[list.count++] = pairs ? &kPairsBaseline : &kBf16Baseline;
  return list;
}

MicroList Int8Micros() {
  MicroList list{};
  if (CpuHasAmxInt8()) list.micros[list.count++] = &kInt8Amx;
  if (CpuHasVnni()) list.micros[list.count++] = &kInt8Vnni;
  if (simd::CpuHasAvx2()) list.micros[list.count++] = &kInt8Avx2;
  list.micros[list.count++] = &kInt8Baseline;
  return list;
}

const Micro& F32Micro() {
  static const Micro& best = *F32Micros().micros[0];
  return best;
}

const Micro& Bf16Micro() {
  static const Micro& tiles = *Bf16Micros(Bf16Sums::kTiles).micros[0];
  static const Micro& pairs = *Bf16Micros(Bf16Sums::kPairs).micros[0];
  return CurrentBf16Sums() == Bf16Sums::kPairs ? pairs : tiles;
}

const Micro& Int8Micro() {
  static const Micro& best = *Int8Micros().micros[0];
  return best;
}

}  // namespace lepton::kernels::gemm
