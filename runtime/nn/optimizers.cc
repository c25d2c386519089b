#include "runtime/nn/optimizers.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "runtime/kernels/cpu/compute_loop.h"
#include "runtime/kernels/cpu/optimizer_kernels.h"
#include "runtime/kernels/device_backend.h"

namespace lepton::nn {
namespace {

constexpr int64_t kGrain = 1 << 15;  // elements for which another thread is worth waking

}  // namespace

Status CheckOptimizer(const spec::OptimizerSpec& optimizer) {
  if (optimizer.name != "sgd" && optimizer.name != "adam" && optimizer.name != "adamw") {
    return InvalidArgument("optimizer.name: '" + optimizer.name +
                           "' is unknown: must be sgd, adam or adamw");
  }
  if (optimizer.decay != "all" && optimizer.decay != "matrices") {
    return InvalidArgument("optimizer.decay: '" + optimizer.decay +
                           "' is unknown: must be all or matrices");
  }
  const auto in_unit = [](double value) { return value >= 0 && value < 1; };
  if (!(optimizer.lr > 0)) return InvalidArgument("optimizer.lr: must be greater than 0");
  if (!(optimizer.weight_decay >= 0)) {
    return InvalidArgument("optimizer.weight_decay: must not be negative");
  }
  if (!in_unit(optimizer.momentum)) return InvalidArgument("optimizer.momentum: must be in [0, 1)");
  if (!in_unit(optimizer.beta1)) return InvalidArgument("optimizer.beta1: must be in [0, 1)");
  if (!in_unit(optimizer.beta2)) return InvalidArgument("optimizer.beta2: must be in [0, 1)");
  if (!(optimizer.epsilon > 0)) return InvalidArgument("optimizer.epsilon: must be greater than 0");
  return Status::Ok();
}

int64_t OptimizerStateSize(const spec::OptimizerSpec& optimizer, int64_t parameters) {
  if (optimizer.name == "sgd") return optimizer.momentum > 0 ? parameters : 0;
  return 2 * parameters;
}

std::vector<UpdateRange> UpdateRanges(const spec::OptimizerSpec& optimizer,
                                      const std::vector<ParameterView>& parameters) {
  std::vector<UpdateRange> ranges;
  for (const ParameterView& view : parameters) {
    if (view.statistic) continue;
    const bool decays = optimizer.decay == "all" || view.shape.size() > 1;
    if (ranges.empty() || ranges.back().decays != decays) {
      ranges.push_back({view.offset, view.offset, decays});
    }
    ranges.back().end = view.offset + view.size;
  }
  return ranges;
}

namespace {

void UpdateBySgd(const spec::OptimizerSpec& optimizer, double lr, double scale,
                 const UpdateRange& range, std::span<float> weights,
                 std::span<const float> gradients, std::span<float> state,
                 kernels::DeviceBackend* backend) {
  const kernels::SgdUpdate update{static_cast<float>(lr), static_cast<float>(scale),
                                  static_cast<float>(range.decays ? optimizer.weight_decay : 0),
                                  static_cast<float>(optimizer.momentum)};
  if (backend != nullptr) {
    backend->ApplySgd(update, range.end - range.begin, weights.data() + range.begin,
                      gradients.data() + range.begin,
                      state.empty() ? nullptr : state.data() + range.begin);
    return;
  }
  kernels::ComputeLoop(range.end - range.begin, kGrain, [&](int64_t begin, int64_t end) {
    const int64_t first = range.begin + begin;
    kernels::ApplySgd(update, end - begin, weights.data() + first, gradients.data() + first,
                      state.empty() ? nullptr : state.data() + first);
  });
}

void UpdateByAdam(const spec::OptimizerSpec& optimizer, double lr, uint64_t step, double scale,
                  const UpdateRange& range, std::span<float> weights,
                  std::span<const float> gradients, std::span<float> state,
                  kernels::DeviceBackend* backend) {
  const bool decoupled = optimizer.name == "adamw";
  const double decay = range.decays ? optimizer.weight_decay : 0;
  const double steps = static_cast<double>(step) + 1;
  const double correction1 = 1 - std::pow(optimizer.beta1, steps);
  const double correction2 = 1 - std::pow(optimizer.beta2, steps);
  const kernels::AdamUpdate update{static_cast<float>(lr / correction1),
                                   static_cast<float>(scale),
                                   static_cast<float>(decoupled ? 0 : decay),
                                   static_cast<float>(decoupled ? 1 - lr * decay : 1),
                                   static_cast<float>(optimizer.beta1),
                                   static_cast<float>(optimizer.beta2),
                                   static_cast<float>(1 / std::sqrt(correction2)),
                                   static_cast<float>(optimizer.epsilon)};
  float* const second = state.data() + state.size() / 2;
  if (backend != nullptr) {
    backend->ApplyAdam(update, range.end - range.begin, weights.data() + range.begin,
                       gradients.data() + range.begin, state.data() + range.begin,
                       second + range.begin);
    return;
  }
  kernels::ComputeLoop(range.end - range.begin, kGrain, [&](int64_t begin, int64_t end) {
    const int64_t first = range.begin + begin;
    kernels::ApplyAdam(update, end - begin, weights.data() + first, gradients.data() + first,
                       state.data() + first, second + first);
  });
}

}  // namespace

void UpdateWeights(const spec::OptimizerSpec& optimizer, double lr, uint64_t step,
                   double gradient_scale, std::span<const UpdateRange> ranges,
                   std::span<float> weights, std::span<const float> gradients,
                   std::span<float> state, kernels::DeviceBackend* backend) {
  for (const UpdateRange& range : ranges) {
    if (optimizer.name == "sgd") {
      UpdateBySgd(optimizer, lr, gradient_scale, range, weights, gradients, state, backend);
    } else {
      UpdateByAdam(optimizer, lr, step, gradient_scale, range, weights, gradients, state, backend);
    }
  }
}

void UpdatePart(const spec::OptimizerSpec& optimizer, double lr, uint64_t step,
                double gradient_scale, std::span<const UpdateRange> ranges, int64_t begin,
                std::span<float> weights, std::span<const float> gradients,
                std::span<float> state) {
  const auto size = static_cast<int64_t>(gradients.size());
  std::vector<UpdateRange> within;
  for (const UpdateRange& range : ranges) {
    const int64_t first = std::max<int64_t>(range.begin - begin, 0);
    const int64_t last = std::min(range.end - begin, size);
    if (first < last) within.push_back({first, last, range.decays});
  }
  UpdateWeights(optimizer, lr, step, gradient_scale, within, weights, gradients, state);
}

std::vector<double> SquaresOfBlocks(std::span<const float> values) {
  const auto count = static_cast<int64_t>(values.size());
  const int64_t blocks = (count + kNormBlock - 1) / kNormBlock;
  std::vector<double> sums(blocks);
  kernels::ComputeLoop(blocks, 2, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) {
      const int64_t first = block * kNormBlock;
      sums[block] =
          kernels::SumOfSquares(std::min(kNormBlock, count - first), values.data() + first);
    }
  });
  return sums;
}

double NormOfBlocks(std::span<const double> squares) {
  double sum = 0;
  for (const double part : squares) sum += part;
  return std::sqrt(sum);
}

double GlobalNorm(std::span<const float> values) {
  return NormOfBlocks(SquaresOfBlocks(values));
}

}  // namespace lepton::nn
