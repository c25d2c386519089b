// The learning rate of each step (0-based). For the first warmup_steps it rises linearly:
// lr * (step + 1) / warmup_steps. Then
//   constant: lr
//   cosine:   from lr down to lr * min_lr_ratio at the last step (Loshchilov and Hutter 2017)
//   step:     lr * gamma ^ floor(step / step_size)
// Threads: pure functions.
#pragma once

#include <cstdint>

#include "runtime/base/status.h"
#include "runtime/spec/job_spec.h"

namespace lepton::nn {

// kInvalidArgument names the field.
Status CheckSchedule(const spec::ScheduleSpec& schedule);

// `schedule` has passed CheckSchedule.
double ScheduledRate(const spec::ScheduleSpec& schedule, double lr, int64_t total_steps,
                     uint64_t step);

}  // namespace lepton::nn
