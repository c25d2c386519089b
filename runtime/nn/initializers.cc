#include "runtime/nn/initializers.h"

#include <algorithm>
#include <cmath>

#include "runtime/tensor/counter_random.h"

namespace lepton::nn {

void Initialize(Initializer initializer, uint64_t seed, std::string_view name, int64_t in,
                int64_t out, std::span<float> values) {
  if (initializer == Initializer::kZeros || initializer == Initializer::kOnes) {
    std::fill(values.begin(), values.end(), initializer == Initializer::kOnes ? 1.0f : 0.0f);
    return;
  }
  const bool kaiming = initializer == Initializer::kKaimingUniform;
  const float bound =
      static_cast<float>(std::sqrt(6.0 / static_cast<double>(kaiming ? in : in + out)));
  const uint64_t stream = HashName(name);
  // The step of a key is free here: it takes the upper half of the name's hash.
  const RandomKey key{seed, static_cast<uint32_t>(stream), stream >> 32, 0};
  for (size_t i = 0; i < values.size(); ++i) {
    const uint32_t bits = RandomBlock(key, static_cast<uint32_t>(i / 4))[i % 4];
    values[i] = (2 * UniformFromBits(bits) - 1) * bound;
  }
}

}  // namespace lepton::nn
