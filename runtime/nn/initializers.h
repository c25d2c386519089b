// First weights, by name: each number follows from (seed, parameter name, index) alone.
// Threads: pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace lepton::nn {

enum class Initializer : uint8_t {
  kZeros,
  kOnes,
  kKaimingUniform,  // +-sqrt(6 / in), before relu and gelu (He et al. 2015)
  kXavierUniform,   // +-sqrt(6 / (in + out)), otherwise (Glorot and Bengio 2010)
};

// `in`, `out`: the layer's extents; ignored for constants.
void Initialize(Initializer initializer, uint64_t seed, std::string_view name, int64_t in,
                int64_t out, std::span<float> values);

}  // namespace lepton::nn
