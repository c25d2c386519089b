// What must hold after every input. For tests, and for a coordinator that wants to check its
// replay.
#pragma once

#include "runtime/base/status.h"
#include "scheduler/core/state.h"

namespace lepton::scheduler {

// kInternal naming the first rule that is broken.
Status CheckInvariants(const State& state);

}  // namespace lepton::scheduler
