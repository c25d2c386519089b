#include "runtime/kernels/cpu/cpu_isa.h"

#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

namespace lepton::kernels {
namespace {

std::optional<CpuIsa> Parse(std::string_view name) {
  if (name == "baseline") return CpuIsa::kBaseline;
  if (name == "avx2") return CpuIsa::kAvx2;
  if (name == "avx512") return CpuIsa::kAvx512;
  return std::nullopt;
}

}  // namespace

CpuIsa AllowedCpuIsa() {
  static const CpuIsa allowed = [] {
    const char* name = std::getenv(kCpuIsaVariable);
    return name == nullptr ? CpuIsa::kAvx512 : Parse(name).value_or(CpuIsa::kAvx512);
  }();
  return allowed;
}

Status CheckCpuIsa() {
  const char* name = std::getenv(kCpuIsaVariable);
  if (name == nullptr || Parse(name)) return Status::Ok();
  return InvalidArgument(std::string(kCpuIsaVariable) + ": '" + name +
                         "' is no instruction set: baseline, avx2 or avx512, or unset it for all "
                         "that this CPU has");
}

}  // namespace lepton::kernels
