// What recoveries of elastic gangs cost, for Prometheus:
//   lepton_recoveries_total{reason}
//   lepton_recovery_seconds{phase}, phase one of detect, agree, rebuild, restore, first_commit,
//   total
// What restarts cost:
//   lepton_restarts_total{reason}
//   lepton_restart_seconds
// And of ranks that ended since their parameters were not those of their peers:
//   lepton_diverged_ranks_total{outcome}, outcome one of removed, job_failed (no majority agreed)
// What tasks tell of their groups (collectives/group_faults.h):
//   lepton_collectives_refused_total{reason}, lepton_collectives_corrupt_total,
//   lepton_collectives_failures_total{code}
// And of the coordinator's own absence:
//   lepton_coordinator_away_seconds, lepton_coordinator_workers_back{outcome}, outcome one of back,
//   lost
// Threads: any.
#pragma once

#include "scheduler/core/effects.h"
#include "scheduler/core/records.pb.h"

namespace lepton::scheduler {

void CountRecovery(const Recovery& recovery);
void CountDivergence(const wire::TaskDiverged& diverged);
void CountLostCheckpoint();
// Of a task's process, whose own metrics nobody reads.
void CountGroupFaults(const wire::TaskGroupFaults& faults);
void NoteReturn(const Return& seen);

}  // namespace lepton::scheduler
