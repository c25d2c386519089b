#include "runtime/nn/schedules.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace lepton::nn {

Status CheckSchedule(const spec::ScheduleSpec& schedule) {
  if (schedule.name != "constant" && schedule.name != "cosine" && schedule.name != "step") {
    return InvalidArgument("schedule.name: '" + schedule.name +
                           "' is unknown: must be constant, cosine or step");
  }
  if (schedule.warmup_steps < 0) {
    return InvalidArgument("schedule.warmup_steps: must not be negative");
  }
  if (schedule.name == "step" && schedule.step_size < 1) {
    return InvalidArgument("schedule.step_size: must be at least 1 for the step schedule");
  }
  return Status::Ok();
}

double ScheduledRate(const spec::ScheduleSpec& schedule, double lr, int64_t total_steps,
                     uint64_t step) {
  const auto now = static_cast<double>(step);
  const auto warmup = static_cast<double>(schedule.warmup_steps);
  if (now < warmup) return lr * (now + 1) / warmup;
  if (schedule.name == "cosine") {
    const double span = std::max(1.0, static_cast<double>(total_steps) - 1 - warmup);
    const double progress = std::clamp((now - warmup) / span, 0.0, 1.0);
    const double height = 0.5 * (1 + std::cos(std::numbers::pi * progress));
    return lr * (schedule.min_lr_ratio + (1 - schedule.min_lr_ratio) * height);
  }
  if (schedule.name == "step") {
    return lr * std::pow(schedule.gamma, std::floor(now / static_cast<double>(schedule.step_size)));
  }
  return lr;
}

}  // namespace lepton::nn
