// Random orders and draws that follow from counters alone, so that any process finds any of them
// without the ones before.
// Threads: pure functions.
#pragma once

#include <cstdint>

namespace lepton::worker {

// The finaliser of SplitMix64 (Steele et al. 2014): every input bit reaches every output bit.
inline uint64_t MixBits(uint64_t value) {
  value += 0x9e3779b97f4a7c15u;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

// Place of item `index` in a pseudo-random order of [0, count): a bijection for each (seed, epoch),
// computed without memory (a Feistel network over the next even power of two, walked until it
// lands inside; Black and Rogaway 2002, "cycle walking").
int64_t PermutedIndex(uint64_t seed, uint64_t epoch, int64_t count, int64_t index);

}  // namespace lepton::worker
