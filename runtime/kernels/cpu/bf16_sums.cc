#include "runtime/kernels/cpu/bf16_sums.h"

#include <atomic>
#include <cstdlib>
#include <string>

#include "runtime/kernels/cpu/gemm/micro.h"
#include "runtime/kernels/cpu/simd/loops.h"

namespace lepton::kernels {
namespace {

std::atomic<Bf16Sums>& Current() {
  static std::atomic<Bf16Sums> current{NativeBf16Sums()};
  return current;
}

}  // namespace

Bf16Sums NativeBf16Sums() {
  static const Bf16Sums native = [] {
    if (const char* name = std::getenv("LEPTON_BF16_SUMS")) {
      if (const auto wanted = ParseBf16Sums(name)) return *wanted;
    }
    const bool pairs = simd::CpuHasAvx512Bf16() && !gemm::CpuHasAmx();
    return pairs ? Bf16Sums::kPairs : Bf16Sums::kTiles;
  }();
  return native;
}

Status CheckBf16Sums() {
  const char* name = std::getenv("LEPTON_BF16_SUMS");
  if (name == nullptr || ParseBf16Sums(name)) return Status::Ok();
  return InvalidArgument("LEPTON_BF16_SUMS: '" + std::string(name) +
                         "' is no order of sums: tiles or pairs, or unset it for this CPU's own");
}

Bf16Sums CurrentBf16Sums() {
  return Current().load(std::memory_order_relaxed);
}

void SetBf16Sums(Bf16Sums sums) {
  Current().store(sums, std::memory_order_relaxed);
}

std::string_view Bf16SumsName(Bf16Sums sums) {
  return sums == Bf16Sums::kPairs ? "pairs" : "tiles";
}

std::optional<Bf16Sums> ParseBf16Sums(std::string_view name) {
  for (const Bf16Sums sums : {Bf16Sums::kTiles, Bf16Sums::kPairs}) {
    if (name == Bf16SumsName(sums)) return sums;
  }
  return std::nullopt;
}

}  // namespace lepton::kernels
