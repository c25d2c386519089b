// In which order this process adds the products of bf16 numbers. CPUs with instructions for them
// come in two kinds that add differently; each is several times as fast in its own order as in the
// other's, and any CPU can follow either, bit by bit. So all who are to have the same bits (the
// ranks of a job, a job that goes on elsewhere) agree on one; whoever does not care takes its own.
// Threads: SetBf16Sums before the first program is built; the others from any.
#pragma once

#include <optional>
#include <string_view>

#include "runtime/base/status.h"

namespace lepton::kernels {

enum class Bf16Sums {
  // TDPBF16PS, AMX: per 32 indices the products of even and of odd ones are summed apart, in order,
  // and both are added to the sum (Intel SDM, vol. 2).
  kTiles,
  // VDPBF16PS, AVX512_BF16 (AMD from Zen 4 on, Cooper Lake): for each pair of indices the odd
  // product, then the even one, is added to the sum.
  kPairs,
};

// The order in which this CPU is fastest. LEPTON_BF16_SUMS=tiles|pairs takes its place.
Bf16Sums NativeBf16Sums();

// Whether LEPTON_BF16_SUMS, if it is set, names an order: INVALID_ARGUMENT if not. A process that
// takes part in jobs asks at its start, since it would go on in an order that nobody chose.
Status CheckBf16Sums();

// What products add in; at first the native order.
Bf16Sums CurrentBf16Sums();
void SetBf16Sums(Bf16Sums sums);

// "tiles", "pairs".
std::string_view Bf16SumsName(Bf16Sums sums);
std::optional<Bf16Sums> ParseBf16Sums(std::string_view name);

}  // namespace lepton::kernels
