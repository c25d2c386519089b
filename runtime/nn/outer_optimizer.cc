#include "runtime/nn/outer_optimizer.h"

#include <algorithm>

#include "runtime/kernels/cpu/compute_loop.h"

namespace lepton::nn {
namespace {

constexpr int64_t kOuterGrain = 1 << 15;  // elements for which another thread is worth waking

}  // namespace

OuterOptimizer::OuterOptimizer(const spec::OuterOptimizerSpec& spec,
                               const std::vector<ParameterView>& parameters)
    : spec_(spec) {
  for (const ParameterView& view : parameters) {
    if (!view.statistic) trained_ = std::max(trained_, view.offset + view.size);
  }
  if (spec_.momentum > 0) momentum_.resize(static_cast<size_t>(trained_));
}

void OuterOptimizer::Step(std::span<const float> changes, double scale, std::span<float> weights) {
  const auto factor = static_cast<float>(scale), lr = static_cast<float>(spec_.lr);
  const auto decay = static_cast<float>(spec_.momentum);
  const bool ahead = spec_.name == "nesterov";
  const auto count = static_cast<int64_t>(weights.size());
  kernels::ComputeLoop(count, kOuterGrain, [&](int64_t begin, int64_t end) {
    const int64_t middle = std::clamp(trained_, begin, end);
    for (int64_t i = begin; i < middle; ++i) {
      const float g = changes[i] * factor;
      float change = g;
      if (!momentum_.empty()) {
        momentum_[i] = decay * momentum_[i] + g;
        change = ahead ? decay * momentum_[i] + g : momentum_[i];
      }
      weights[i] -= lr * change;
    }
    for (int64_t i = middle; i < end; ++i) weights[i] -= changes[i] * factor;
  });
}

}  // namespace lepton::nn
