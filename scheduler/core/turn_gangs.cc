#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "scheduler/core/elastic.h"
#include "scheduler/core/index.h"
#include "scheduler/core/job_state.h"
#include "scheduler/core/queue.h"
#include "scheduler/core/turn.h"

namespace lepton::scheduler {
namespace {

constexpr uint32_t kDoneGraceMs = 200;

// Pairs only where no worker would be slow with them: whoever has tiles is several times as fast
// with these, and a gang may come to any of the pool's workers.
std::string Bf16SumsOf(const State& state) {
  for (const auto& [id, worker] : state.workers) {
    if (worker.state() != WORKER_LOST && worker.hello().bf16_sums() != "pairs") return "tiles";
  }
  return "pairs";
}

}  // namespace

int64_t StartDeadline(const Gang& gang, const ReactorOptions& options) {
  return std::max(gang.placed_ms(), gang.alive_ms()) + options.start_timeout_ms;
}

void Turn::StartGang(GangPlan plan) {
  const std::string gang_id = plan.gang.id();
  for (size_t rank = 0; rank < plan.workers.size(); ++rank) {
    const Worker& worker = state_.workers.at(WorkerId(plan.workers[rank]));
    Task& task = *plan.gang.add_tasks();
    task.set_id(plan.gang.deployment().empty() ? fmt::format("{}.r{}", gang_id, rank) : gang_id);
    task.set_rank(static_cast<uint32_t>(rank));
    task.set_worker_id(worker.id());
    task.set_incarnation(worker.hello().incarnation());
    task.set_host(worker.hello().host());
    task.set_slots(plan.slots);
  }
  // Another order would be other bits than those that a checkpoint was made with.
  const Job* job = state_.FindJob(JobId(plan.gang.job_id()));
  const bool decided = job != nullptr && !job->bf16_sums().empty();
  plan.gang.set_bf16_sums(decided ? job->bf16_sums() : Bf16SumsOf(state_));
  plan.gang.set_mpi(job != nullptr &&
                    UsesMpi(state_.Spec(JobId(job->id())), static_cast<int>(plan.workers.size())));
  Record record;
  *record.mutable_gang_placed() = plan.gang;
  Persist(std::move(record));
  const Gang& gang = state_.gangs.at(gang_id);
  for (const Task& task : gang.tasks()) SendStart(gang, task);
}

void Turn::MaybeRunning(const std::string& gang_id) {
  const Gang& gang = state_.gangs.at(gang_id);
  if (gang.state() != GANG_STARTING) return;
  bool running = true;
  for (const Task& task : gang.tasks()) {
    if (!IsMember(gang, task)) continue;
    running = running && task.state() != TASK_PLACED &&
              (gang.tasks_size() == 1 || gang.sharded() || task.has_endpoint()) &&
              (gang.deployment().empty() || task.ready_port() > 0);
  }
  if (!running && !gang.progressed()) return;
  Record record;
  record.mutable_gang_moved()->set_gang_id(gang_id);
  record.mutable_gang_moved()->set_to(GANG_RUNNING);
  record.mutable_gang_moved()->set_trigger_rank(-1);
  Persist(std::move(record));
  const Job* job = state_.FindJob(JobId(gang.job_id()));
  if (job == nullptr || job->state() != JOB_STARTING) return;
  JobChange change;
  change.to = JOB_RUNNING;
  change.reason_code = "STARTED";
  change.cause =
      fmt::format("{} ranks run", gang.elastic() ? gang.members_size() : gang.tasks_size());
  MoveJob(JobId(job->id()), change);
}

void Turn::SendGroup(const Gang& gang, const Task& to) {
  wire::TaskGroup group;
  group.set_task_id(to.id());
  group.set_epoch(gang.elastic() ? gang.epoch() : gang.attempt());
  std::vector<uint32_t> seats(gang.members().begin(), gang.members().end());
  if (!gang.elastic()) {
    for (const Task& task : gang.tasks()) seats.push_back(task.rank());
  }
  for (size_t rank = 0; rank < seats.size(); ++rank) {
    const Task& task = gang.tasks(static_cast<int>(seats[rank]));
    if (task.id() == to.id()) group.set_rank(static_cast<uint32_t>(rank));
    wire::Member& member = *group.add_members();
    member.set_rank(static_cast<uint32_t>(rank));
    member.set_host(task.host());
    member.set_address(task.endpoint());
    member.set_seat(seats[rank]);
  }
  effects_.SendGroup(WorkerId(to.worker_id()), group);
}

void Turn::SendStop(const Task& task, uint32_t grace_ms, const std::string& reason) {
  wire::StopTask stop;
  stop.set_task_id(task.id());
  stop.set_grace_ms(grace_ms);
  stop.set_reason(reason);
  effects_.Stop(WorkerId(task.worker_id()), stop);
}

void Turn::StopGang(const std::string& gang_id, const std::string& stop_code,
                    const std::string& cause, int trigger_rank) {
  const Gang& gang = state_.gangs.at(gang_id);
  if (gang.state() == GANG_STOPPING) return;
  Record record;
  GangMoved& moved = *record.mutable_gang_moved();
  moved.set_gang_id(gang_id);
  moved.set_to(GANG_STOPPING);
  moved.set_stop_code(stop_code);
  moved.set_stop_cause(cause);
  moved.set_trigger_rank(trigger_rank);
  Persist(std::move(record));
  // Behind the last shard there is nothing that a rank could still save, and one that is stuck is
  // not to hold the job.
  const bool done = gang.sharded() && gang.has_result();
  const uint32_t grace =
      done ? std::min(options_.stop_grace_ms, kDoneGraceMs) : options_.stop_grace_ms;
  for (const Task& task : gang.tasks()) {
    if (IsAlive(task)) SendStop(task, grace, stop_code);
  }
}

void Turn::BreakGang(const std::string& gang_id, const std::string& stop_code,
                     const std::string& cause, int trigger_rank) {
  StopGang(gang_id, stop_code, cause, trigger_rank);
  const Gang& gang = state_.gangs.at(gang_id);
  const Job* job = state_.FindJob(JobId(gang.job_id()));
  // A trial recovers alone: its job goes on.
  if (job == nullptr || gang.trial() >= 0 || !CanMove(job->state(), JOB_RECOVERING)) return;
  JobChange change;
  change.to = JOB_RECOVERING;
  change.reason_code = stop_code;
  change.cause = cause;
  MoveJob(JobId(job->id()), change);
}

void Turn::EndGang(const std::string& gang_id) {
  const Gang gang = state_.gangs.at(gang_id);
  Verdict verdict = JudgeGang(gang);
  verdict.mpi_over = LeftMpiOpen(gang);
  Record record;
  record.mutable_gang_ended()->set_gang_id(gang_id);
  record.mutable_gang_ended()->set_mpi_over(verdict.mpi_over);
  Persist(std::move(record));
  for (const Task& task : gang.tasks()) {
    reactor_.seen_seq_.erase(task.id());
    reactor_.storing_ms_.erase(task.id());
  }
  Forget(IncompleteObjects(gang));
  reactor_.dirty_ = true;
  if (!gang.deployment().empty()) return OnReplicaEnded(gang, verdict);
  if (gang.trial() >= 0) return OnTrialGangEnded(gang, verdict);
  OnJobGangEnded(gang, verdict);
}

void Turn::TickGang(const std::string& gang_id) {
  auto it = state_.gangs.find(gang_id);
  if (it == state_.gangs.end()) return;
  const Gang& gang = it->second;
  if (gang.state() == GANG_STARTING && now_ >= StartDeadline(gang, options_)) {
    return BreakGang(gang_id, "START_TIMEOUT",
                     fmt::format("not every rank was up within {} ms", options_.start_timeout_ms),
                     -1);
  }
  if (gang.state() != GANG_STOPPING) {
    if (gang.result_ms() > 0 && now_ >= gang.result_ms() + options_.stop_timeout_ms) {
      StopGang(gang_id, "DONE", "rank 0 has finished");
    }
    return;
  }
  if (now_ < reactor_.StopDeadline(gang)) return;
  std::vector<Task> alive;
  for (const Task& task : gang.tasks()) {
    if (IsAlive(task)) alive.push_back(task);
  }
  if (gang.kills() == 0) {
    Record record;
    record.mutable_gang_moved()->set_gang_id(gang_id);
    record.mutable_gang_moved()->set_to(GANG_STOPPING);
    record.mutable_gang_moved()->set_kill(true);
    Persist(std::move(record));
    for (const Task& task : alive) SendStop(task, 0, "did not stop in time");
    return;
  }
  for (const Task& task : alive)
    LoseTask(task.id(), "did not stop, and its worker does not say why");
  AfterLoss({gang_id}, "STOP_TIMEOUT");
}

}  // namespace lepton::scheduler
