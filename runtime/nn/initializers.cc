#include "runtime/nn/initializers.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/thread_pool.h"
#include "runtime/kernels/cpu/random_fill.h"
#include "runtime/tensor/counter_random.h"

namespace lepton::nn {
namespace {

// The step of a key is free here: it takes the upper half of the name's hash.
RandomKey KeyOf(uint64_t seed, std::string_view name) {
  const uint64_t stream = HashName(name);
  return {seed, static_cast<uint32_t>(stream), stream >> 32, 0};
}

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
    const int64_t part = std::min(4 * end, count) - 4 * begin;
    float* const to = values.data() + 4 * begin;
    if (first.kind == FirstValues::Kind::kNormal) {
      kernels::FillNormal(key, begin, part, first.scale, to);
    } else {
      kernels::FillUniform(key, begin, part, scale, to);
    }
  });
}

}  // namespace lepton::nn
