// How long a run is, and where a task ends.
// Threads: pure.
#pragma once

#include <cstdint>

#include "runtime/base/status.h"
#include "runtime/spec/job_spec.h"

namespace lepton::worker {

// Of a whole run of this spec over so many training rows.
int64_t StepsPerEpoch(const spec::JobSpec& spec, int64_t train_rows);
uint64_t TotalSteps(const spec::JobSpec& spec, int64_t train_rows);
// Where this task ends: the total, or sooner for a trial's rung, by the spec's labels
// "lepton.stop_at_step" or "lepton.stop_at_epoch"; with local_sgd at the end of that round.
// kInvalidArgument when they are not numbers.
Result<uint64_t> StopStep(const spec::JobSpec& spec, int64_t train_rows);

}  // namespace lepton::worker
