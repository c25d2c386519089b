// Random numbers without state: Philox 4x32 with 10 rounds (Salmon et al. 2011, "Parallel random
// numbers: as easy as 1, 2, 3"). The number at an index depends on the key and the counters alone,
// never on the order or the thread in which it is drawn.
// Threads: pure functions.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace lepton {

struct RandomKey {
  uint64_t seed = 0;
  uint32_t stream = 0;  // which use of randomness: a layer, a parameter
  uint64_t step = 0;
  uint32_t shard = 0;
};

// Four 32-bit numbers of block `block`: the numbers 4 * block .. 4 * block + 3 of the key.
inline std::array<uint32_t, 4> RandomBlock(const RandomKey& key, uint32_t block) {
  std::array<uint32_t, 4> counter = {
      block, key.stream, static_cast<uint32_t>(key.step),
      key.shard ^ (static_cast<uint32_t>(key.step >> 32) * 0x9E3779B1u)};
  uint32_t key0 = static_cast<uint32_t>(key.seed);
  uint32_t key1 = static_cast<uint32_t>(key.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {
        static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key0, static_cast<uint32_t>(product1),
        static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key1, static_cast<uint32_t>(product0)};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

// Uniform in [0, 1), 24 bits.
inline float UniformFromBits(uint32_t bits) {
  return static_cast<float>(bits >> 8) * (1.0f / 16777216.0f);
}

// FNV-1a: names as streams and seeds.
inline uint64_t HashName(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

}  // namespace lepton
