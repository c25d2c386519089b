// What recoveries of elastic gangs cost, for Prometheus:
//   lepton_recoveries_total{reason}
//   lepton_recovery_seconds{phase}, phase one of detect, agree, rebuild, restore, first_commit,
//   total
// Threads: any.
#pragma once

#include "scheduler/core/records.pb.h"

namespace lepton::scheduler {

void CountRecovery(const Recovery& recovery);

}  // namespace lepton::scheduler
