#include <utility>

#include "scheduler/core/elastic.h"
#include "scheduler/core/index.h"
#include "scheduler/core/queue.h"
#include "scheduler/core/turn.h"
#include "scheduler/search/searcher.h"

namespace lepton::scheduler {

std::set<WorkerId> Turn::Away(const std::string& device) const {
  std::set<WorkerId> away;
  for (const auto& [id, wall_ms] : reactor_.unconfirmed_) away.insert(id);
  for (const auto& [of, put_off] : reactor_.put_off_) {
    const auto& [id, failed] = of;
    if ((failed.empty() || failed == device) && now_ < put_off.until_ms) away.insert(id);
  }
  return away;
}

// Replicas first: requests wait for them. Then each device's queue in order. What is served may
// change slots and wishes again (a trial that cannot start fails), so until all is quiet.
void Turn::Schedule() {
  while (std::exchange(reactor_.dirty_, false)) {
    std::vector<std::string> names;
    for (const auto& [name, deployment] : state_.deployments) names.push_back(name);
    for (const std::string& name : names) Reconcile(name);
    std::vector<std::string> devices;
    for (const auto& [device, queue] : state_.queues) devices.push_back(device);
    for (const std::string& device : devices) ServeQueue(device);
    ServeJoins();
  }
  ForgetJobs();
}

// Serving changes the queue, so each step looks for the next key instead of keeping an iterator.
void Turn::ServeQueue(const std::string& device) {
  std::optional<State::QueueKey> served;
  while (true) {
    auto queue = state_.queues.find(device);
    if (queue == state_.queues.end()) return;
    auto next = served ? queue->second.upper_bound(*served) : queue->second.begin();
    if (next == queue->second.end()) return;
    served = *next;
    if (!ServeJob(std::get<JobId>(*served))) return;
  }
}

bool Turn::ServeJob(const JobId& id) {
  const Job& job = state_.jobs.at(id);
  if (!IsQueued(job)) return true;
  if (job.kind() == "tune") return ServeTune(id);
  const auto placed = placement::PlaceGang(SeatsOf(state_, Away(state_.Spec(id).resources.device)),
                                           RequestOf(state_.Spec(id), job));
  if (placed.workers.empty()) return placed.never;
  StartJob(id, placed);
  return true;
}

bool Turn::ServeTune(const JobId& id) {
  // Each round starts one trial; a trial that cannot even start is told to the searcher as failed.
  while (IsQueued(state_.jobs.at(id)) && WantsTrial(state_, id, now_)) {
    const Job& job = state_.jobs.at(id);
    const auto placed = placement::PlaceGang(
        SeatsOf(state_, Away(state_.Spec(id).resources.device)), RequestOf(state_.Spec(id), job));
    if (placed.workers.empty()) return placed.never;
    if (!PendingTrial(job, now_)) AskSearcher(id);
    StartTrial(id, *PendingTrial(job, now_), placed);
  }
  return true;
}

void Turn::StartJob(const JobId& id, const placement::Placement& placed) {
  const Job& job = state_.jobs.at(id);
  const spec::JobSpec& spec = state_.Spec(id);
  JobChange change;
  change.to = JOB_STARTING;
  change.reason_code = "PLACED";
  change.cause = placed.reason;
  change.attempts = 1;
  MoveJob(id, change);
  GangPlan plan;
  plan.gang.set_id(id.str() + ".a" + std::to_string(job.attempt()));
  plan.gang.set_job_id(id.str());
  plan.gang.set_trial(-1);
  plan.gang.set_kind(job.kind());
  plan.gang.set_attempt(job.attempt());
  plan.workers = placed.workers;
  plan.gang.set_sharded(IsSharded(spec));
  if (IsElastic(spec)) MakeElastic(plan);
  plan.slots = RequestOf(spec, job).slots;
  if (job.checkpoints_size() > 0 && !plan.gang.sharded()) {
    plan.gang.set_resume_checkpoint(job.checkpoints(job.checkpoints_size() - 1).manifest());
  }
  StartGang(std::move(plan));
}

}  // namespace lepton::scheduler
