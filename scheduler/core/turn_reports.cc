#include <fmt/format.h>
#include <glog/logging.h>

#include <algorithm>
#include <utility>

#include "runtime/base/utf8.h"
#include "scheduler/core/elastic.h"
#include "scheduler/core/index.h"
#include "scheduler/core/job_state.h"
#include "scheduler/core/turn.h"
#include "storage/checkpoints/checkpoint.h"

namespace lepton::scheduler {
namespace {

constexpr size_t kMaxPolicyLineBytes = 1024;

bool IsWaitingSeat(const Task& task) {
  return IsAlive(task) && (task.group_epoch() == 0 || IsListening(task));
}

const Task* LostMember(const Gang& gang) {
  for (const Task& task : gang.tasks()) {
    if (task.state() == TASK_LOST && IsMember(gang, task)) return &task;
  }
  return nullptr;
}

}  // namespace

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
  std::set<uint32_t> others;
  if (report.has_shard_done()) {
    others = OthersWith(state_.gangs.at(gang_id), *task, report.shard_done().shard());
  }
  const bool writes = report.has_checkpoint() || report.has_checkpoint_slice();
  std::vector<std::string> apart;
  if (writes) apart = IncompleteObjects(state_.gangs.at(gang_id));
  if (report.has_finished()) {
    apart.assign(report.finished().objects().begin(), report.finished().objects().end());
    apart.push_back(report.finished().model_manifest());
  }
  if (!report.has_log() && !report.has_group_faults()) {
    Record record;
    *record.mutable_task_reported() = report;
    Persist(std::move(record));
  }
  Forget(apart);  // of checkpoints that will never be whole, and of what is no result
  effects_.Ack(reported.worker, ack);
  const Gang& gang = state_.gangs.at(gang_id);
  effects_.Accepted(JobId(gang.job_id()), gang.trial(), report);
  switch (report.body_case()) {
    case wire::TaskReport::kLog:
      if (!report.log().checkpoint_lost().empty()) {
        OnCheckpointLost(JobId(gang.job_id()), report.log().checkpoint_lost());
      }
      return OnLog(gang, *task, report.log());
    case wire::TaskReport::kCheckpoint:
    case wire::TaskReport::kCheckpointSlice:
      return OnCheckpoint(gang);
    case wire::TaskReport::kGone:
      return OnTaskGone(gang_id, rank, report.wall_ms());
    case wire::TaskReport::kFinished:
      return OnTaskEnded(gang_id, rank, report.wall_ms());
    case wire::TaskReport::kEndpoint: {
      if (gang.elastic()) return OnListening(gang_id, *task, report.endpoint());
      bool complete = gang.tasks_size() > 1 && gang.state() == GANG_STARTING;
      for (const Task& one : gang.tasks()) complete = complete && one.has_endpoint();
      if (complete) {
        for (const Task& one : gang.tasks()) SendGroup(gang, one);
      }
      return MaybeRunning(gang_id);
    }
    case wire::TaskReport::kRecovered:
      return LetJoin(gang_id);
    case wire::TaskReport::kProgress:
      if (gang.elastic()) reactor_.dirty_ = true;  // it may want more ranks
      return MaybeRunning(gang_id);
    case wire::TaskReport::kStarted: {
      reactor_.put_off_.erase({WorkerId(task->worker_id()), ""});
      return MaybeRunning(gang_id);
    }
    case wire::TaskReport::kReady:
      return MaybeRunning(gang_id);
    case wire::TaskReport::kShardsReady:
      return OnShardsReady(gang_id, rank);
    case wire::TaskReport::kShardDone:
      return OnShardDone(gang_id, rank, report.shard_done(), std::move(others));
    case wire::TaskReport::kStraggler:
    case wire::TaskReport::kBusy:
    case wire::TaskReport::kGroupFaults:
    case wire::TaskReport::BODY_NOT_SET:
      return;
  }
}

void Turn::On(const TasksStoring& storing) {
  for (const std::string& id : storing.tasks) {
    const Task* task = state_.FindTask(id);
    const bool ours =
        task != nullptr && IsAlive(*task) && task->worker_id() == storing.worker.str();
    if (ours) reactor_.storing_ms_[id] = now_;
  }
}

// Told once, until one is stored again.
void Turn::OnCheckpointLost(const JobId& id, const std::string& cause) {
  if (!state_.active.contains(id) || !reactor_.losing_.insert(id).second) return;
  Record record;
  record.mutable_job_noted()->set_job_id(id.str());
  record.mutable_job_noted()->set_reason_code("CHECKPOINT_LOST");
  record.mutable_job_noted()->set_cause(cause);
  Persist(std::move(record));
}

void Turn::OnLog(const Gang& gang, const Task& task, const wire::TaskLog& log) {
  const JobId id(gang.job_id());
  if (gang.job_id().empty() || gang.state() == GANG_STOPPING || !state_.active.contains(id)) return;
  const std::vector<spec::LogPolicy>& policies = state_.Spec(id).restart.log_policies;
  if (policies.empty()) return;
  Reactor::Policies& compiled = reactor_.policies_[id];
  if (compiled.patterns.empty()) {
    for (const spec::LogPolicy& policy : policies) {
      // Checked on submission; what another release took and this does not finds nothing.
      Result<Pattern> pattern = Pattern::Compile(policy.pattern);
      compiled.patterns.emplace_back();
      if (pattern.ok()) compiled.patterns.back().emplace(*std::move(pattern));
    }
  }
  for (const std::string& line : log.lines()) {
    const std::string head(Utf8Prefix(line, kMaxPolicyLineBytes));
    for (size_t i = 0; i < policies.size(); ++i) {
      std::optional<Pattern>& pattern = compiled.patterns[i];
      if (!pattern) continue;
      Result<bool> found = pattern->Found(head);
      // Everybody waits for these searches.
      if (!found.ok() && ++compiled.dear >= Reactor::kDearSearches) {
        pattern.reset();
        Record record;
        record.mutable_job_noted()->set_job_id(id.str());
        record.mutable_job_noted()->set_reason_code("LOG_POLICY_TOO_DEAR");
        record.mutable_job_noted()->set_cause(
            fmt::format("restart.log_policies.{}: '{}' is not looked for any more: {}", i,
                        policies[i].pattern, found.status().message()));
        Persist(std::move(record));
      }
      if (!std::move(found).value_or(false)) continue;
      const std::string cause = fmt::format("rank {} on worker {} logged '{}'", task.rank(),
                                            task.worker_id(), Utf8Prefix(head, 200));
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
  reactor_.losing_.erase(JobId(gang.job_id()));
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

void Turn::OnTaskEnded(const std::string& gang_id, uint32_t rank, int64_t ended_ms) {
  reactor_.dirty_ = true;
  const Gang& gang = state_.gangs.at(gang_id);
  const Task& task = gang.tasks(static_cast<int>(rank));
  if (!task.gone() || EndedWell(task)) PutOffAfter(gang, task);  // else that is done
  if (FirstWhere(gang, &IsAlive) == nullptr) return EndGang(gang_id);
  if (EndedWell(task)) {
    // Nobody will meet any more: those that wait for a group, or to be in one, may go.
    const bool waits = gang.elastic() && gang.has_result() &&
                       (gang.forming() || FirstWhere(gang, &IsWaitingSeat) != nullptr);
    if (waits) return StopGang(gang_id, "DONE", "the leader has finished");
    // The leader was lost with its result, and this one will not come to the group that is to make
    // it anew.
    if (gang.elastic() && gang.forming() && !gang.has_result() && IsMember(gang, task)) {
      EpochChange change;
      change.reason_code = "RANK_LEAVES";
      change.cause = Describe(task);
      change.fault = false;
      if (GoOnWithout(gang_id, change)) return;
      return BreakGang(gang_id, change.reason_code, change.cause, -1);
    }
    // Shards are done when the coordinator says so, not a rank.
    if (gang.sharded() && gang.state() != GANG_STOPPING && !gang.has_result()) {
      return BreakGang(gang_id, "TASK_FAILED", Describe(task), static_cast<int>(rank));
    }
    return MaybeRunning(gang_id);
  }
  // Once rank 0 has the result, what becomes of the others is of no importance.
  if (gang.state() == GANG_STOPPING || gang.has_result()) return;
  if (!IsMember(gang, task)) return;  // it never was one, or its peers have gone on
  const Verdict verdict = JudgeTask(task);
  // All of them go. One that did not hear of the checkpoint is not to wait for the others.
  if (task.saved()) {
    return BreakGang(gang_id, verdict.reason_code, verdict.cause, static_cast<int>(rank));
  }
  if (OthersGoOn(gang_id, task, verdict, ended_ms)) return;
  if (verdict.kind == Verdict::Kind::kFatal && gang.trial() < 0 && !gang.job_id().empty()) {
    return StopJob(JobId(gang.job_id()), JOB_FAILED, verdict.reason_code, verdict.error_code,
                   verdict.cause);
  }
  BreakGang(gang_id, verdict.reason_code, verdict.cause, static_cast<int>(rank));
}

// Its worker, if it had no place for the task, or its device failed there; not one that has shown
// that all is well.
void Turn::PutOffAfter(const Gang& gang, const Task& task) {
  const WorkerId worker(task.worker_id());
  const std::string device = DeviceOf(gang);
  if (EndedWell(task)) {
    reactor_.put_off_.erase({worker, ""});
    reactor_.put_off_.erase({worker, device});
  }
  const auto put_off = [&](const std::string& why, int64_t base_ms) {
    Reactor::PutOff& known = reactor_.put_off_[{worker, why}];
    known.until_ms = now_ + BackoffMs(base_ms, ++known.times, options_.backoff_cap_ms);
  };
  if (task.refused()) put_off("", kRefusedRetryMs);
  if (LostItsDevice(task)) put_off(device, kBrokenRetryMs);
}

// Replicas compute on the host.
std::string Turn::DeviceOf(const Gang& gang) const {
  const JobId job(gang.job_id());
  return state_.specs.contains(job) ? state_.Spec(job).resources.device : "cpu";
}

// What it left is still on its way, and still taken: nobody need wait for that.
void Turn::OnTaskGone(const std::string& gang_id, uint32_t rank, int64_t ended_ms) {
  const Gang& gang = state_.gangs.at(gang_id);
  const Task& task = gang.tasks(static_cast<int>(rank));
  PutOffAfter(gang, task);
  if (gang.sharded()) {  // others take what it had, and its last report says who is a member
    reactor_.dirty_ = true;
    return DealHands(gang_id, {});
  }
  if (!Goes(gang) || !IsMember(gang, task) || IsAwaited(task)) return;
  const Verdict verdict = JudgeTask(task);
  if (OthersGoOn(gang_id, task, verdict, ended_ms)) return;
  BreakGang(gang_id, verdict.reason_code, verdict.cause, static_cast<int>(rank));
}

bool Turn::OthersGoOn(const std::string& gang_id, const Task& task, const Verdict& verdict,
                      int64_t ended_ms) {
  if (!OthersMayGoOn(verdict)) return false;
  const bool left =
      verdict.kind == Verdict::Kind::kRefused || verdict.reason_code == "WORKER_STOPPED";
  EpochChange change;
  change.reason_code = left                         ? "RANK_LEAVES"
                       : task.has_diverged()        ? "DIVERGED"
                       : LostItsDevice(task)        ? "DEVICE_FAILED"
                       : task.silent_since_ms() > 0 ? "HUNG"
                                                    : "RANK_LOST";
  change.cause = verdict.cause;
  change.fault = !left;
  change.trigger_rank = static_cast<int>(task.rank());
  change.fault_ms = task.silent_since_ms() > 0 ? task.silent_since_ms() : ended_ms;
  return GoOnWithout(gang_id, change);
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
    const Task* lost = LostMember(gang);
    if (lost == nullptr) continue;
    EpochChange change;
    change.reason_code = stop_code == "HUNG" ? "HUNG" : "RANK_LOST";
    change.cause = Describe(*lost);
    change.trigger_rank = static_cast<int>(lost->rank());
    if (GoOnWithout(id, change)) continue;
    BreakGang(id, stop_code, Describe(*lost), static_cast<int>(lost->rank()));
  }
}

}  // namespace lepton::scheduler
