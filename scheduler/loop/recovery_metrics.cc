#include "scheduler/loop/recovery_metrics.h"

#include <utility>

#include "runtime/base/metrics.h"

namespace lepton::scheduler {

void CountRecovery(const Recovery& recovery) {
  if (recovery.restart()) {
    metrics::Counter("lepton_restarts_total",
                     "Jobs that started again from their last checkpoint, by reason.",
                     {{"reason", recovery.reason_code()}})
        .Increment();
    metrics::Histogram("lepton_restart_seconds",
                       "From a fault that ended a gang to the first progress of the next.", {})
        .Observe(recovery.total() / 1000);
    return;
  }
  metrics::Counter("lepton_recoveries_total", "Changes of elastic gangs' membership, by reason.",
                   {{"reason", recovery.reason_code()}})
      .Increment();
  for (const auto& [phase, ms] :
       {std::pair{"detect", recovery.detect()}, std::pair{"agree", recovery.agree()},
        std::pair{"rebuild", recovery.rebuild()}, std::pair{"restore", recovery.restore()},
        std::pair{"first_commit", recovery.first_commit()}, std::pair{"total", recovery.total()}}) {
    metrics::Histogram("lepton_recovery_seconds",
                       "From a fault to the next committed step, by phase.", {{"phase", phase}})
        .Observe(ms / 1000);
  }
}

void CountDivergence(const wire::TaskDiverged& diverged) {
  metrics::Counter("lepton_diverged_ranks_total",
                   "Training ranks whose parameters were not those of their peers, by outcome.",
                   {{"outcome", diverged.agreeing() > 0 ? "removed" : "job_failed"}})
      .Increment();
}

void CountLostCheckpoint() {
  static auto& lost = metrics::Counter("lepton_checkpoints_lost_total",
                                       "Checkpoints that could not be stored here.");
  lost.Increment();
}

void CountGroupFaults(const wire::TaskGroupFaults& faults) {
  for (const auto& [reason, times] : faults.refused()) {
    metrics::Counter("lepton_collectives_refused_total",
                     "Connections refused by a group's endpoint, by reason.", {{"reason", reason}})
        .Increment(static_cast<double>(times));
  }
  if (faults.corrupt() > 0) {
    metrics::Counter("lepton_collectives_corrupt_total",
                     "Frames of a group's data connections that arrived changed.")
        .Increment(static_cast<double>(faults.corrupt()));
  }
  for (const auto& [code, times] : faults.failures()) {
    metrics::Counter("lepton_collectives_failures_total",
                     "Groups broken by an operation of a rank, by status code.", {{"code", code}})
        .Increment(static_cast<double>(times));
  }
}

void NoteReturn(const Return& seen) {
  metrics::Gauge("lepton_coordinator_away_seconds",
                 "How long there was no coordinator before this one.")
      .Set(static_cast<double>(seen.away_ms) / 1000);
  for (const auto& [outcome, workers] :
       {std::pair{"back", seen.back}, std::pair{"lost", seen.known - seen.back}}) {
    metrics::Gauge("lepton_coordinator_workers_back",
                   "Workers that were there before this coordinator, by what became of them.",
                   {{"outcome", outcome}})
        .Set(static_cast<double>(workers));
  }
}

}  // namespace lepton::scheduler
