// What a job's restarts cost: from the fault that ended its gang to the first progress of the next.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "scheduler/core/applier.h"
#include "scheduler/core/elastic.h"

namespace lepton::scheduler {
namespace {

// Clocks of several hosts: no time is negative.
double Between(int64_t from, int64_t to) {
  return static_cast<double>(std::max<int64_t>(0, to - from));
}

}  // namespace

// The end of a process that failed. What follows from it, in place or anew, begins there.
void Applier::NoteFailure(const Gang& gang, const Task& task, const wire::TaskFinished& finished,
                          int64_t wall_ms) {
  Job* job = FindJob(gang.job_id());
  if (job == nullptr || gang.trial() >= 0 || wall_ms <= 0) return;
  // Without one that is no member yet, or was refused, all goes on.
  if (!IsMember(gang, task) || finished.refused()) return;
  if (finished.code() == "OK" || finished.code() == "CANCELLED") return;
  if (job->fault_ms() == 0 || wall_ms < job->fault_ms()) job->set_fault_ms(wall_ms);
}

// A second fault before the first is over is of the same entry. Trials start again by themselves.
void Applier::OpenRestart(Job& job, const JobMoved& moved) {
  // A job that has not begun is not restarted.
  if (job.trials_size() > 0 || job.started_ms() == 0) return;
  if (job.has_restart()) {
    // Who blames its peers often tells first: when all have, it is known who was to blame.
    if (job.restart().agreed_ms() > 0) return;
    job.mutable_restart()->set_reason_code(moved.reason_code());
    job.mutable_restart()->set_cause(moved.cause());
    return;
  }
  Recovery& open = *job.mutable_restart();
  open.set_restart(true);
  open.set_reason_code(moved.reason_code());
  open.set_cause(moved.cause());
  open.set_detected_ms(record_.wall_ms());
  int64_t fault = job.fault_ms() > 0 ? job.fault_ms() : record_.wall_ms();
  const auto gangs = state_.gangs_of_job.find(JobId(job.id()));
  if (gangs != state_.gangs_of_job.end()) {
    for (const std::string& id : gangs->second) {
      const Gang& gang = state_.gangs.at(id);
      if (gang.recovery().fault_ms() > 0) fault = std::min(fault, gang.recovery().fault_ms());
    }
  }
  open.set_fault_ms(std::min(fault, record_.wall_ms()));
  job.clear_fault_ms();
}

Recovery* Applier::RestartOf(const Gang& gang) {
  Job* job = FindJob(gang.job_id());
  if (job == nullptr || gang.trial() >= 0 || !job->has_restart()) return nullptr;
  return job->mutable_restart();
}

void Applier::CloseRestart(const Gang& gang, uint64_t step) {
  const Recovery* const open = RestartOf(gang);
  if (open == nullptr || open->agreed_ms() == 0) return;
  Job& job = *FindJob(gang.job_id());
  Recovery done = *open;
  job.clear_restart();
  job.clear_fault_ms();
  const int64_t running = done.running_ms() > 0 ? done.running_ms() : record_.wall_ms();
  done.set_epoch(gang.elastic() ? gang.epoch() : 1);
  done.set_attempt(gang.attempt());
  done.set_step(step);
  done.set_ranks(static_cast<uint32_t>(gang.elastic() ? gang.members_size() : gang.tasks_size()));
  done.set_detect(Between(done.fault_ms(), done.detected_ms()));
  done.set_agree(Between(done.detected_ms(), done.agreed_ms()));
  done.set_rebuild(Between(done.agreed_ms(), running));
  done.set_first_commit(Between(running, record_.wall_ms()));
  done.set_total(Between(done.fault_ms(), record_.wall_ms()));
  Event event = MembershipEvent(gang, "RECOVERING", "RUNNING");
  event.set_reason_code(done.reason_code());
  event.set_cause(fmt::format(
      "started again in {:.0f} ms (detect {:.0f}, placed {:.0f}, running {:.0f}, first progress "
      "{:.0f}): step {} by {} ranks in attempt {}",
      done.total(), done.detect(), done.agree(), done.rebuild(), done.first_commit(), done.step(),
      done.ranks(), done.attempt()));
  KeepRecovery(job, std::move(done));
  Happened(std::move(event), &job);
}

}  // namespace lepton::scheduler
