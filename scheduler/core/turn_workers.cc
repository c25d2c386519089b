#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "scheduler/core/index.h"
#include "scheduler/core/turn.h"

namespace lepton::scheduler {
namespace {

constexpr char kLeaves[] = "it leaves";

}  // namespace

void Turn::On(const WorkerHello& arrived) {
  const wire::Hello& hello = arrived.hello;
  const WorkerId id(hello.worker_id());
  if (id.empty()) return;
  auto known = state_.workers.find(id);
  if (known != state_.workers.end() && known->second.state() != WORKER_LOST &&
      known->second.hello().incarnation() != hello.incarnation()) {
    LoseWorker(id, "its process was replaced by a new one");
    known = state_.workers.find(id);
  }
  if (known == state_.workers.end() || known->second.state() == WORKER_LOST) {
    Record record;
    Worker& worker = *record.mutable_worker_joined();
    worker.set_id(id.str());
    worker.set_state(WORKER_UP);
    *worker.mutable_hello() = hello;
    worker.mutable_hello()->clear_running();
    worker.mutable_hello()->clear_silent_ms();
    const bool same =
        known != state_.workers.end() && known->second.hello().incarnation() == hello.incarnation();
    worker.set_mpi_over(same && known->second.mpi_over());
    Persist(std::move(record));
  }
  if (reactor_.unconfirmed_.erase(id) > 0) {
    reactor_.returned_[id] = now_;
    if (reactor_.absence_) {
      Reactor::Absence& absence = *reactor_.absence_;
      ++absence.seen.back;
      if (hello.silent_ms() > 0) {
        absence.heard_ms = std::max(absence.heard_ms, now_ - hello.silent_ms());
      }
    }
    MaybeTellAbsence();
  }
  reactor_.dirty_ = true;

  wire::Welcome welcome;
  welcome.set_protocol_version(hello.protocol_version());
  welcome.set_coordinator_incarnation(options_.coordinator_incarnation);
  welcome.set_heartbeat_ms(options_.heartbeat_ms);
  welcome.set_lease_ms(options_.lease_ms);
  std::set<std::string> running;
  for (const wire::RunningTask& claimed : hello.running()) {
    const Task* task = state_.FindTask(claimed.task_id());
    if (task == nullptr || !IsAlive(*task) || task->worker_id() != id.str() ||
        task->incarnation() != hello.incarnation()) {
      welcome.add_unknown_task_ids(claimed.task_id());
      continue;
    }
    running.insert(claimed.task_id());
    wire::RunningTask& acked = *welcome.add_acked();
    acked.set_task_id(claimed.task_id());
    acked.set_last_seq(task->last_seq());
  }
  effects_.Welcome(id, welcome);

  std::set<std::string> missing, hurt;
  if (auto it = state_.tasks_of_worker.find(id); it != state_.tasks_of_worker.end()) {
    std::set_difference(it->second.begin(), it->second.end(), running.begin(), running.end(),
                        std::inserter(missing, missing.end()));
  }
  for (const std::string& task : missing) {
    // The order to start it was lost, or crossed this Hello.
    const Task* lost = state_.FindTask(task);
    if (lost->state() == TASK_PLACED && lost->last_seq() == 0) {
      const Gang& gang = *state_.GangOfTask(task);
      if (gang.state() != GANG_STOPPING && !lost->leaving()) SendStart(gang, *lost);
      running.insert(task);
      continue;
    }
    hurt.insert(state_.gang_of_task.at(task));
    LoseTask(task, "its worker came back without it");
  }
  AfterLoss(hurt, "TASK_LOST");
  // What was said before the connection broke may not have arrived.
  for (const std::string& task_id : running) {
    const Gang* gang = state_.GangOfTask(task_id);
    const Task* task = state_.FindTask(task_id);
    if (gang == nullptr || !IsAlive(*task)) continue;
    if (gang->state() == GANG_STOPPING) SendStop(*task, options_.stop_grace_ms, gang->stop_code());
    const bool complete = std::all_of(gang->tasks().begin(), gang->tasks().end(),
                                      [](const Task& one) { return one.has_endpoint(); });
    if (gang->sharded()) {
      if (task->leaving()) SendLeave(*task, "it was told so before");
      SendShards(*gang, *task);
    } else if (gang->elastic()) {
      const bool forming = gang->forming();
      if (forming) MaybeForm(gang->id());  // which waited for this worker to come back
      if (gang->forming() == forming) SendEpoch(*gang, *task);
      // Behind the list of members: who has that meets them first.
      if (task->leaving()) SendLeave(*task, "it was told so before");
    } else if (gang->tasks_size() > 1 && complete && !gang->progressed()) {
      SendGroup(*gang, *task);
    }
  }
  if (known != state_.workers.end() && known->second.state() == WORKER_DRAINING) {
    wire::Drain drain;
    drain.set_reason(known->second.reason());
    drain.set_grace_ms(DrainGraceMs(id));
    effects_.Drain(id, drain);
  }
}

void Turn::MaybeTellAbsence() {
  if (!reactor_.absence_ || !reactor_.unconfirmed_.empty()) return;
  Return seen = reactor_.absence_->seen;
  seen.away_ms = std::max<int64_t>(0, reactor_.absence_->began_ms - reactor_.absence_->heard_ms);
  reactor_.absence_.reset();
  effects_.Returned(seen);
  const std::set<JobId> active = state_.active;
  for (const JobId& id : active) {
    const JobState now = state_.jobs.at(id).state();
    if (now == JOB_QUEUED || now == JOB_STOPPING) continue;
    Record record;
    record.mutable_job_noted()->set_job_id(id.str());
    record.mutable_job_noted()->set_reason_code("COORDINATOR_AWAY");
    record.mutable_job_noted()->set_cause(
        fmt::format("the coordinator was away for {} ms; {} of {} workers came back", seen.away_ms,
                    seen.back, seen.known));
    Persist(std::move(record));
  }
}

void Turn::On(const WorkerLost& lost) {
  auto it = state_.workers.find(lost.id);
  if (it == state_.workers.end() || it->second.state() == WORKER_LOST) return;
  LoseWorker(lost.id, lost.reason);
}

// Its tasks see to themselves: their agent has told them.
void Turn::On(const WorkerLeaving& leaving) {
  auto it = state_.workers.find(leaving.id);
  if (it == state_.workers.end() || it->second.state() != WORKER_UP) return;
  Record record;
  record.mutable_worker_moved()->set_worker_id(leaving.id.str());
  record.mutable_worker_moved()->set_to(WORKER_DRAINING);
  record.mutable_worker_moved()->set_reason(kLeaves);
  Persist(std::move(record));
}

void Turn::LoseWorker(const WorkerId& id, const std::string& reason) {
  Record record;
  record.mutable_worker_moved()->set_worker_id(id.str());
  record.mutable_worker_moved()->set_to(WORKER_LOST);
  record.mutable_worker_moved()->set_reason(reason);
  Persist(std::move(record));
  if (reactor_.unconfirmed_.erase(id) > 0) MaybeTellAbsence();
  reactor_.returned_.erase(id);
  std::erase_if(reactor_.put_off_, [&](const auto& one) { return one.first.first == id; });
  reactor_.dirty_ = true;
  std::set<std::string> tasks, hurt;
  if (auto it = state_.tasks_of_worker.find(id); it != state_.tasks_of_worker.end()) {
    tasks = it->second;
  }
  for (const std::string& task : tasks) {
    hurt.insert(state_.gang_of_task.at(task));
    LoseTask(task, "worker lost: " + reason);
  }
  AfterLoss(hurt, "WORKER_LOST");
}

std::set<std::string> Turn::GangsOn(const WorkerId& worker) const {
  std::set<std::string> gangs;
  if (auto tasks = state_.tasks_of_worker.find(worker); tasks != state_.tasks_of_worker.end()) {
    for (const std::string& task : tasks->second) gangs.insert(state_.gang_of_task.at(task));
  }
  return gangs;
}

// As long as the slowest of its tasks may take.
uint32_t Turn::DrainGraceMs(const WorkerId& worker) const {
  uint32_t grace = options_.stop_grace_ms;
  for (const std::string& gang : GangsOn(worker)) {
    grace = std::max(grace, LeaveGraceMs(state_.gangs.at(gang)));
  }
  return grace;
}

void Turn::On(const DrainWorker& drain) {
  auto it = state_.workers.find(drain.id);
  if (it == state_.workers.end() || it->second.state() == WORKER_LOST) {
    return Answer(NotFound(fmt::format("no worker '{}' is up", drain.id.str())));
  }
  if (it->second.state() == WORKER_DRAINING && it->second.reason() != kLeaves) {
    return Answer(Status::Ok(), drain.id.str(), true);
  }
  Record record;
  record.mutable_worker_moved()->set_worker_id(drain.id.str());
  record.mutable_worker_moved()->set_to(WORKER_DRAINING);
  record.mutable_worker_moved()->set_reason(drain.reason);
  Persist(std::move(record));
  reactor_.dirty_ = true;
  wire::Drain message;
  message.set_reason(drain.reason);
  message.set_grace_ms(DrainGraceMs(drain.id));
  effects_.Drain(drain.id, message);
  for (const std::string& gang : GangsOn(drain.id)) {
    if (state_.gangs.at(gang).has_result()) continue;
    const std::string cause = fmt::format("worker {} is being drained", drain.id.str());
    if (LetLeave(gang, drain.id, cause)) continue;
    BreakGang(gang, "DRAIN", cause, -1);
  }
  Answer(Status::Ok(), drain.id.str());
}

void Turn::TickWorkers() {
  std::vector<WorkerId> late, old;
  for (const auto& [id, until] : reactor_.unconfirmed_) {
    if (now_ >= until) late.push_back(id);
  }
  for (const WorkerId& id : late) {
    LoseWorker(id, "it did not come back after the coordinator restarted");
  }
  for (const auto& [id, worker] : state_.workers) {
    if (worker.state() == WORKER_LOST &&
        now_ >= worker.since_ms() + options_.forget_lost_worker_ms) {
      old.push_back(id);
    }
  }
  for (const WorkerId& id : old) {
    Record record;
    record.mutable_worker_forgotten()->set_worker_id(id.str());
    Persist(std::move(record));
  }
}

}  // namespace lepton::scheduler
