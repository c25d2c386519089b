#include "worker/data/permutation.h"

#include <algorithm>
#include <bit>

namespace lepton::worker {
namespace {
constexpr int kRounds = 6;
}

int64_t PermutedIndex(uint64_t seed, uint64_t epoch, int64_t count, int64_t index) {
  const int bits = std::max(2, static_cast<int>(std::bit_width(static_cast<uint64_t>(count - 1))));
  const int half = (bits + 1) / 2;
  const uint64_t mask = (uint64_t{1} << half) - 1;
  const uint64_t key = MixBits(MixBits(seed) ^ epoch);
  uint64_t value = static_cast<uint64_t>(index);
  do {
    uint64_t left = value >> half, right = value & mask;
    for (int round = 0; round < kRounds; ++round) {
      const uint64_t mixed = left ^ (MixBits(key + MixBits(right * kRounds + round)) & mask);
      left = right;
      right = mixed;
    }
    value = (left << half) | right;
  } while (value >= static_cast<uint64_t>(count));
  return static_cast<int64_t>(value);
}

}  // namespace lepton::worker
