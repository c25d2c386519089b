#include "runtime/nn/initializers.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "runtime/base/thread_pool.h"
#include "runtime/tensor/counter_random.h"

namespace lepton::nn {
namespace {

// The step of a key is free here: it takes the upper half of the name's hash.
RandomKey KeyOf(uint64_t seed, std::string_view name) {
  const uint64_t stream = HashName(name);
  return {seed, static_cast<uint32_t>(stream), stream >> 32, 0};
}

// Two normal numbers from two uniform ones (Box and Muller 1958).
struct NormalPair {
  NormalPair(uint32_t a, uint32_t b) {
    const double radius = std::sqrt(-2 * std::log((a + 0.5) / 4294967296.0));
    const double angle = 2 * std::numbers::pi * (b / 4294967296.0);
    values[0] = radius * std::cos(angle);
    values[1] = radius * std::sin(angle);
  }
  double values[2];
};

}  // namespace

FirstValues FirstValues::Kaiming(int64_t in) {
  return {Kind::kUniform, std::sqrt(6.0 / static_cast<double>(in))};
}

FirstValues FirstValues::Xavier(int64_t in, int64_t out) {
  return {Kind::kUniform, std::sqrt(6.0 / static_cast<double>(in + out))};
}

FirstValues FirstValues::ConvolutionFanOut(int64_t out, int64_t kernel_elements) {
  return Normal(std::sqrt(2.0 / static_cast<double>(out * kernel_elements)));
}

void Initialize(const FirstValues& first, uint64_t seed, std::string_view name,
                std::span<float> values) {
  const auto scale = static_cast<float>(first.scale);
  if (first.kind == FirstValues::Kind::kConstant) {
    std::fill(values.begin(), values.end(), scale);
    return;
  }
  const RandomKey key = KeyOf(seed, name);
  const auto count = static_cast<int64_t>(values.size());
  constexpr int64_t kGrain = 1 << 10;  // blocks for which another thread is worth waking
  ThreadPool::Compute().ParallelFor((count + 3) / 4, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const auto bits = RandomBlock(key, static_cast<uint32_t>(block));
      float four[4];
      for (int i = 0; i < 4; i += 2) {
        if (first.kind == FirstValues::Kind::kNormal) {
          const NormalPair normal(bits[i], bits[i + 1]);
          for (int j = 0; j < 2; ++j) {
            four[i + j] = static_cast<float>(normal.values[j] * first.scale);
          }
        } else {
          for (int j = 0; j < 2; ++j) {
            four[i + j] = (2 * UniformFromBits(bits[i + j]) - 1) * scale;
          }
        }
      }
      std::copy_n(four, std::min<int64_t>(4, count - 4 * block), values.begin() + 4 * block);
    }
  });
}

}  // namespace lepton::nn
