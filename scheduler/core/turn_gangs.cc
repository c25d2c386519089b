#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "runtime/base/hash.h"
#include "scheduler/core/index.h"
#include "scheduler/core/job_state.h"
#include "scheduler/core/turn.h"
#include "storage/checkpoints/checkpoint.h"

namespace lepton::scheduler {
namespace {

constexpr size_t kMaxPolicyLineBytes = 1024;  // std::regex recurses: long lines would overflow

bool EndedWell(const Task& task) {
  return task.state() == TASK_FINISHED && task.code() == "OK" && task.signal() == 0;
}

// Its process did not end by itself.
bool WasTaken(const Task& task) {
  return task.state() == TASK_LOST || task.signal() != 0;
}

const Task* FirstWhere(const Gang& gang, bool (*is)(const Task&)) {
  for (const Task& task : gang.tasks()) {
    if (is(task)) return &task;
  }
  return nullptr;
}

bool EndedFatally(const Task& task) {
  return task.state() == TASK_FINISHED && task.signal() == 0 &&
         IsFatal(StatusCodeFromName(task.code()));
}

// What a rank says when it is its peer that died.
bool BlamesPeers(const Task& task) {
  const StatusCode code = StatusCodeFromName(task.code());
  return code == StatusCode::kAborted || code == StatusCode::kUnavailable ||
         code == StatusCode::kDeadlineExceeded;
}

std::string Describe(const Task& task) {
  std::string what = fmt::format("rank {} on worker {}: ", task.rank(), task.worker_id());
  if (task.state() == TASK_LOST) return what + task.message();
  if (task.signal() != 0) return what + fmt::format("killed by signal {}", task.signal());
  return what + fmt::format("{}: {}", task.code(), task.message());
}

Verdict JudgeTask(const Task& task) {
  using Kind = Verdict::Kind;
  const std::string code = task.code().empty() ? "INTERNAL" : task.code();
  if (task.state() == TASK_LOST) return {Kind::kWorkerFault, "WORKER_LOST", code, Describe(task)};
  if (task.signal() != 0) return {Kind::kWorkerFault, "TASK_KILLED", "ABORTED", Describe(task)};
  if (EndedFatally(task)) return {Kind::kFatal, "TASK_FAILED", code, Describe(task)};
  // It was told to stop, though not by us: its worker is going away.
  if (code == "CANCELLED") return {Kind::kWorkerFault, "WORKER_STOPPED", "ABORTED", Describe(task)};
  return {Kind::kTaskFault, "TASK_FAILED", code == "OK" ? "INTERNAL" : code, Describe(task)};
}

// The first 16 bytes of a SHA-256.
std::string GroupToken(const std::string& secret, const std::string& gang_id) {
  const std::string hex = Sha256Hex(secret + "/gang/" + gang_id);
  std::string token;
  for (size_t i = 0; i < 32; i += 2) {
    token += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return token;
}

}  // namespace

bool IsFatal(StatusCode code) {
  return code == StatusCode::kInvalidArgument || code == StatusCode::kFailedPrecondition ||
         code == StatusCode::kDataLoss;
}

int64_t StartDeadline(const Gang& gang, const ReactorOptions& options) {
  return std::max(gang.placed_ms(), gang.alive_ms()) + options.start_timeout_ms;
}

Verdict JudgeGang(const Gang& gang) {
  using Kind = Verdict::Kind;
  if (gang.has_result()) return {Kind::kSucceeded, "SUCCEEDED", "", ""};
  if (gang.stop_code() == "DRAIN") return {Kind::kMoved, "DRAIN", "", gang.stop_cause()};
  const bool ours = gang.state() == GANG_STOPPING && gang.trigger_rank() < 0;
  if (ours && (gang.stop_code() == "START_TIMEOUT" || gang.stop_code() == "LOG_POLICY")) {
    return {Kind::kWorkerFault, gang.stop_code(), "UNAVAILABLE", gang.stop_cause()};
  }
  if (ours) return {Kind::kStopped, gang.stop_code(), "CANCELLED", gang.stop_cause()};
  const Task* trigger = gang.trigger_rank() >= 0 ? &gang.tasks(gang.trigger_rank()) : nullptr;
  if (trigger == nullptr) {
    trigger = FirstWhere(gang, [](const Task& task) { return !EndedWell(task); });
  }
  if (trigger == nullptr) trigger = &gang.tasks(0);
  // A rank that blames its peers often reports before the peer that is to blame.
  if (!WasTaken(*trigger) && BlamesPeers(*trigger)) {
    if (const Task* taken = FirstWhere(gang, &WasTaken)) trigger = taken;
    if (const Task* fatal = FirstWhere(gang, &EndedFatally); fatal && !WasTaken(*trigger)) {
      trigger = fatal;
    }
  }
  return JudgeTask(*trigger);
}

// ---- reports ----------------------------------------------------------------------------------

void Turn::On(const TaskReported& reported) {
  const wire::TaskReport& report = reported.report;
  wire::ReportAck ack;
  ack.set_task_id(report.task_id());
  ack.set_seq(report.seq());
  const Task* task = state_.FindTask(report.task_id());
  auto worker = state_.workers.find(reported.worker);
  const bool ours = task != nullptr && IsAlive(*task) && worker != state_.workers.end() &&
                    task->worker_id() == reported.worker.str() &&
                    task->incarnation() == worker->second.hello().incarnation();
  if (!ours) {
    // Nobody waits for it: take the report off its hands, and the task off the worker's.
    effects_.Ack(reported.worker, ack);
    if (report.has_finished()) return;
    wire::StopTask stop;
    stop.set_task_id(report.task_id());
    stop.set_reason("not a task of this coordinator any more");
    return effects_.Stop(reported.worker, stop);
  }
  uint64_t& seen = reactor_.seen_seq_[report.task_id()];
  seen = std::max(seen, task->last_seq());
  if (report.seq() <= seen) {
    ack.set_seq(seen);
    return effects_.Ack(reported.worker, ack);
  }
  seen = report.seq();
  const std::string gang_id = state_.gang_of_task.at(report.task_id());
  const uint32_t rank = task->rank();
  if (!report.has_log()) {
    Record record;
    *record.mutable_task_reported() = report;
    Persist(std::move(record));
  }
  effects_.Ack(reported.worker, ack);
  const Gang& gang = state_.gangs.at(gang_id);
  effects_.Accepted(JobId(gang.job_id()), gang.trial(), report);
  switch (report.body_case()) {
    case wire::TaskReport::kLog:
      return OnLog(gang, *task, report.log());
    case wire::TaskReport::kCheckpoint:
      return OnCheckpoint(gang);
    case wire::TaskReport::kFinished:
      return OnTaskEnded(gang_id, rank);
    case wire::TaskReport::kEndpoint: {
      bool complete = gang.tasks_size() > 1 && gang.state() == GANG_STARTING;
      for (const Task& one : gang.tasks()) complete = complete && one.has_endpoint();
      if (complete) {
        for (const Task& one : gang.tasks()) SendGroup(gang, one);
      }
      return MaybeRunning(gang_id);
    }
    case wire::TaskReport::kStarted:
    case wire::TaskReport::kProgress:
    case wire::TaskReport::kReady:
      return MaybeRunning(gang_id);
    case wire::TaskReport::BODY_NOT_SET:
      return;
  }
}

void Turn::OnLog(const Gang& gang, const Task& task, const wire::TaskLog& log) {
  const JobId id(gang.job_id());
  if (gang.job_id().empty() || gang.state() == GANG_STOPPING || !state_.active.contains(id)) return;
  const std::vector<spec::LogPolicy>& policies = state_.Spec(id).restart.log_policies;
  if (policies.empty()) return;
  std::vector<std::regex>& compiled = reactor_.policies_[id];
  if (compiled.empty()) {
    for (const spec::LogPolicy& policy : policies) compiled.emplace_back(policy.pattern);
  }
  for (const std::string& line : log.lines()) {
    const std::string head = line.substr(0, kMaxPolicyLineBytes);
    for (size_t i = 0; i < policies.size(); ++i) {
      if (!std::regex_search(head, compiled[i])) continue;
      const std::string cause = fmt::format("rank {} on worker {} logged '{}'", task.rank(),
                                            task.worker_id(), head.substr(0, 200));
      if (policies[i].action == "fail_job") {
        return StopJob(id, JOB_FAILED, "LOG_POLICY", "ABORTED", cause);
      }
      Record record;
      record.mutable_worker_excluded()->set_job_id(id.str());
      record.mutable_worker_excluded()->set_worker_id(task.worker_id());
      record.mutable_worker_excluded()->set_cause(cause);
      Persist(std::move(record));
      return BreakGang(gang.id(), "LOG_POLICY", cause, -1);
    }
  }
}

// Keeps what the spec asks for; the newest always, since a restart needs it.
void Turn::OnCheckpoint(const Gang& gang) {
  auto it = state_.jobs.find(JobId(gang.job_id()));
  if (it == state_.jobs.end() || IsTerminal(it->second.state())) return;
  const Job& job = it->second;
  const spec::CheckpointSpec& wish = state_.Spec(JobId(job.id())).checkpoint;
  const bool own = gang.trial() < 0;
  const auto& all = own ? job.checkpoints() : job.trials(gang.trial()).checkpoints();
  storage::RetentionPolicy policy;
  policy.keep_last = own ? std::max(wish.keep_last, 1) : 1;
  policy.keep_best = own ? wish.keep_best.count : 0;
  policy.metric = wish.keep_best.metric;
  policy.maximize = wish.keep_best.mode == "max";
  std::vector<storage::CheckpointInfo> infos;
  for (const Checkpoint& checkpoint : all) {
    storage::CheckpointInfo info;
    info.step = checkpoint.step();
    info.metrics.insert(checkpoint.metrics().begin(), checkpoint.metrics().end());
    infos.push_back(std::move(info));
  }
  Record record;
  CheckpointsDropped& dropped = *record.mutable_checkpoints_dropped();
  dropped.set_job_id(job.id());
  dropped.set_trial(gang.trial());
  std::vector<std::string> digests;
  for (size_t index : storage::CheckpointsToDelete(infos, policy)) {
    const Checkpoint& checkpoint = all.Get(static_cast<int>(index));
    dropped.add_manifests(checkpoint.manifest());
    ForEachObject(checkpoint, [&](const std::string& digest) { digests.push_back(digest); });
  }
  if (dropped.manifests().empty()) return;
  Persist(std::move(record));
  Forget(digests);
}

void Turn::OnTaskEnded(const std::string& gang_id, uint32_t rank) {
  reactor_.dirty_ = true;
  const Gang& gang = state_.gangs.at(gang_id);
  const Task& task = gang.tasks(static_cast<int>(rank));
  if (FirstWhere(gang, &IsAlive) == nullptr) return EndGang(gang_id);
  if (EndedWell(task)) return MaybeRunning(gang_id);
  // Once rank 0 has the result, what becomes of the others is of no importance.
  if (gang.state() == GANG_STOPPING || gang.has_result()) return;
  const Verdict verdict = JudgeTask(task);
  if (verdict.kind == Verdict::Kind::kFatal && gang.trial() < 0 && !gang.job_id().empty()) {
    return StopJob(JobId(gang.job_id()), JOB_FAILED, verdict.reason_code, verdict.error_code,
                   verdict.cause);
  }
  BreakGang(gang_id, verdict.reason_code, verdict.cause, static_cast<int>(rank));
}

void Turn::LoseTask(const std::string& task_id, const std::string& cause) {
  Record record;
  record.mutable_task_lost()->set_task_id(task_id);
  record.mutable_task_lost()->set_cause(cause);
  Persist(std::move(record));
  reactor_.dirty_ = true;
}

void Turn::AfterLoss(const std::set<std::string>& gang_ids, const std::string& stop_code) {
  for (const std::string& id : gang_ids) {
    auto it = state_.gangs.find(id);
    if (it == state_.gangs.end()) continue;
    const Gang& gang = it->second;
    if (FirstWhere(gang, &IsAlive) == nullptr) {
      EndGang(id);
      continue;
    }
    if (gang.state() == GANG_STOPPING || gang.has_result()) continue;
    const Task* lost = FirstWhere(gang, [](const Task& task) { return task.state() == TASK_LOST; });
    BreakGang(id, stop_code, Describe(*lost), static_cast<int>(lost->rank()));
  }
}

// ---- the gang ---------------------------------------------------------------------------------

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
  Record record;
  *record.mutable_gang_placed() = plan.gang;
  Persist(std::move(record));
  plan.start.set_job_id(plan.gang.job_id());
  plan.start.set_deployment(plan.gang.deployment());
  plan.start.set_attempt(plan.gang.attempt());
  plan.start.set_kind(plan.gang.kind());
  plan.start.set_size(static_cast<uint32_t>(plan.workers.size()));
  plan.start.set_group_token(GroupToken(options_.token_secret, gang_id));
  plan.start.set_epoch(plan.gang.attempt());
  plan.start.set_slots(std::max(plan.slots, 1u));
  plan.start.set_resume_checkpoint(plan.gang.resume_checkpoint());
  plan.start.set_stop_grace_ms(options_.stop_grace_ms);
  for (const Task& task : state_.gangs.at(gang_id).tasks()) {
    plan.start.set_task_id(task.id());
    plan.start.set_rank(task.rank());
    effects_.Start(WorkerId(task.worker_id()), plan.start);
  }
}

void Turn::MaybeRunning(const std::string& gang_id) {
  const Gang& gang = state_.gangs.at(gang_id);
  if (gang.state() != GANG_STARTING) return;
  bool running = true;
  for (const Task& task : gang.tasks()) {
    running = running && task.state() != TASK_PLACED &&
              (gang.tasks_size() == 1 || task.has_endpoint()) &&
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
  change.cause = fmt::format("{} ranks run", gang.tasks_size());
  MoveJob(JobId(job->id()), change);
}

void Turn::SendGroup(const Gang& gang, const Task& to) {
  wire::TaskGroup group;
  group.set_task_id(to.id());
  group.set_epoch(gang.attempt());
  for (const Task& task : gang.tasks()) {
    wire::Member& member = *group.add_members();
    member.set_rank(task.rank());
    member.set_host(task.host());
    member.set_address(task.endpoint());
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
  for (const Task& task : gang.tasks()) {
    if (IsAlive(task)) SendStop(task, options_.stop_grace_ms, stop_code);
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
  const Verdict verdict = JudgeGang(gang);
  Record record;
  record.mutable_gang_ended()->set_gang_id(gang_id);
  Persist(std::move(record));
  for (const Task& task : gang.tasks()) reactor_.seen_seq_.erase(task.id());
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
  if (now_ < gang.stopping_ms() + options_.stop_timeout_ms) return;
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
