#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <utility>

#include "scheduler/core/index.h"
#include "scheduler/core/job_state.h"
#include "scheduler/core/queue.h"
#include "scheduler/core/turn.h"
#include "scheduler/search/searcher.h"

namespace lepton::scheduler {
namespace {

// Jobs an input: of many more the next inputs forget the rest.
constexpr int kForgottenAtOnce = 100;

int64_t Ms(Duration duration) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
}

Status CheckPolicies(const spec::JobSpec& spec) {
  for (const spec::LogPolicy& policy : spec.restart.log_policies) {
    if (const auto pattern = Pattern::Compile(policy.pattern); !pattern.ok()) {
      return pattern.status().WithContext(
          fmt::format("restart.log_policies: '{}'", policy.pattern));
    }
  }
  return Status::Ok();
}

}  // namespace

int64_t BackoffMs(int64_t base_ms, int restarts, int64_t cap_ms) {
  int64_t backoff = std::min(std::max<int64_t>(base_ms, 0), cap_ms);
  for (int i = 1; i < restarts && backoff < cap_ms && backoff > 0; ++i) backoff *= 2;
  return std::min(backoff, cap_ms);
}

// The answer to a repeat, with `existing` set when the first job is given back; nothing if this is
// a new submission.
std::optional<Status> Turn::CheckRepeat(const SubmitJob& submit, const std::string& spec_json,
                                        JobId* existing) const {
  const Job* job = nullptr;
  std::string what;
  if (auto it = state_.job_of_key.find(submit.idempotency_key);
      !submit.idempotency_key.empty() && it != state_.job_of_key.end()) {
    job = state_.FindJob(it->second);
    what = fmt::format("idempotency key '{}'", submit.idempotency_key);
  } else if (!submit.id.empty()) {
    job = state_.FindJob(submit.id);
    what = fmt::format("id '{}'", submit.id.str());
  }
  if (job == nullptr) return std::nullopt;
  if (job->spec_json() != spec_json) {
    return AlreadyExists(
        fmt::format("{}: job {} has it, with another spec: choose a new one", what, job->id()));
  }
  *existing = JobId(job->id());
  return Status::Ok();
}

Status CheckSubmit(const State& state, const SubmitJob& submit) {
  if (!submit.id.empty()) {
    LEPTON_RETURN_IF_ERROR(CheckName("id", submit.id.str()));
    // Task ids are made of the job's id and dots.
    if (submit.id.str().find('.') != std::string::npos) {
      return InvalidArgument(fmt::format("id: '{}' has a dot: use - or _", submit.id.str()));
    }
  }
  // The journal keeps the spec as JSON: what does not come back from it would be lost.
  const auto read_back = spec::JobSpecFromJson(spec::JobSpecToJson(submit.spec));
  LEPTON_RETURN_IF_ERROR(read_back.status());
  LEPTON_RETURN_IF_ERROR(CheckPolicies(submit.spec));
  if (submit.spec.kind == spec::JobKind::kTune) {
    if (!submit.spec.search) return InvalidArgument("search: is missing: a tune job needs one");
    const auto searcher = search::MakeSearcher(*submit.spec.search, TrialBudget(submit.spec));
    LEPTON_RETURN_IF_ERROR(searcher.status());
  }
  const std::vector<placement::Seat> seats = PoolSeats(state);
  if (seats.empty()) return Status::Ok();  // nobody knows yet how large the pool will be
  const auto placed = placement::PlaceGang(seats, RequestOf(submit.spec, Job()));
  if (placed.never) {
    return FailedPrecondition(
        fmt::format("resources: {}: more than this pool has at all: ask for less or add workers",
                    placed.reason));
  }
  return Status::Ok();
}

void Turn::On(const SubmitJob& submit) {
  const std::string spec_json = spec::JobSpecToJson(submit.spec).dump();
  JobId existing;
  if (auto repeat = CheckRepeat(submit, spec_json, &existing)) {
    return Answer(*repeat, existing.str(), repeat->ok());
  }
  if (Status status = CheckSubmit(state_, submit); !status.ok()) return Answer(status);
  std::string id = submit.id.str();
  for (uint64_t n = state_.next_job; id.empty() || (submit.id.empty() && state_.FindJob(JobId(id)));
       ++n) {
    id = fmt::format("j{}", n);
  }
  Record record;
  Job& job = *record.mutable_job_submitted();
  job.set_id(id);
  job.set_idempotency_key(submit.idempotency_key);
  job.set_spec_json(spec_json);
  job.set_kind(std::string(spec::JobKindName(submit.spec.kind)));
  job.set_name(submit.spec.name);
  job.set_queue(submit.spec.queue);
  job.set_priority(submit.spec.priority);
  *job.mutable_inputs() = submit.inputs;
  if (submit.spec.deadline) job.set_deadline_ms(now_ + Ms(*submit.spec.deadline));
  Persist(std::move(record));
  reactor_.dirty_ = true;
  Answer(Status::Ok(), id);
}

void Turn::On(const CancelJob& cancel) {
  const Job* job = state_.FindJob(cancel.id);
  if (job == nullptr) return Answer(state_.NoJob(cancel.id));
  const bool cancelled = job->state() == JOB_CANCELLED ||
                         (job->state() == JOB_STOPPING && job->stopping_to() == JOB_CANCELLED);
  if (cancelled) return Answer(Status::Ok(), cancel.id.str(), true);
  if (IsTerminal(job->state()) || job->state() == JOB_STOPPING) {
    return Answer(FailedPrecondition(
        fmt::format("job {} is {} already", cancel.id.str(), JobStateName(job->state()))));
  }
  StopJob(cancel.id, JOB_CANCELLED, "CANCELLED", "", cancel.cause);
  Answer(Status::Ok(), cancel.id.str());
}

void Turn::MoveJob(const JobId& id, const JobChange& change) {
  const Job& job = state_.jobs.at(id);
  const bool failed = change.to == JOB_FAILED || change.to == JOB_CANCELLED;
  if (failed && job.trials_size() > 0) LetTrialsGo(id);
  std::vector<std::string> parts;  // they are in the result's file, or for nothing
  if (IsTerminal(change.to)) {
    ForEachObject(job.shards(), [&](const std::string& digest) { parts.push_back(digest); });
  }
  Record record;
  JobMoved& moved = *record.mutable_job_moved();
  moved.set_job_id(id.str());
  moved.set_from(job.state());
  moved.set_to(change.to);
  moved.set_reason_code(change.reason_code);
  moved.set_cause(change.cause);
  moved.set_attempt(job.attempt() + change.attempts);
  moved.set_worker_restarts(job.worker_restarts() + change.worker_restarts);
  moved.set_task_restarts(job.task_restarts() + change.task_restarts);
  moved.set_error_code(change.error_code);
  moved.set_error(change.error);
  moved.set_stopping_to(change.stopping_to);
  moved.set_retry_at_ms(change.retry_at_ms);
  if (change.result != nullptr) *moved.mutable_result() = *change.result;
  // The best model so far of a search that does not come to its end.
  if (failed && job.best_trial() >= 0) {
    *moved.mutable_result() = job.trials(job.best_trial()).result();
  }
  Persist(std::move(record));
  reactor_.dirty_ = true;
  if (IsTerminal(change.to)) {
    reactor_.policies_.erase(id);
    reactor_.losing_.erase(id);
  }
  Forget(parts);
}

void Turn::StopJob(const JobId& id, JobState to, const std::string& reason_code,
                   const std::string& error_code, const std::string& cause) {
  JobChange change;
  change.reason_code = reason_code;
  change.cause = cause;
  change.error_code = error_code;
  if (!error_code.empty()) change.error = cause;
  auto living = state_.gangs_of_job.find(id);
  if (living == state_.gangs_of_job.end()) {
    change.to = to;
    return MoveJob(id, change);
  }
  change.to = JOB_STOPPING;
  change.stopping_to = to;
  MoveJob(id, change);
  for (const std::string& gang : std::set<std::string>(living->second)) {
    StopGang(gang, reason_code, cause);
  }
}

// STOPPING comes to its end with the last gang.
static bool LastGang(const State& state, const JobId& id) {
  return !state.gangs_of_job.contains(id);
}

void Turn::OnJobGangEnded(const Gang& gang, const Verdict& verdict) {
  const JobId id(gang.job_id());
  const Job& job = state_.jobs.at(id);
  if (job.state() == JOB_STOPPING) {
    if (!LastGang(state_, id)) return;
    JobChange change;
    change.to = job.stopping_to();
    change.reason_code = job.reason_code();
    change.cause = job.cause();
    MoveJob(id, change);
    std::vector<std::string> unused;
    ForEachObject(gang.result(), [&](const std::string& digest) { unused.push_back(digest); });
    return Forget(unused);
  }
  switch (verdict.kind) {
    case Verdict::Kind::kSucceeded:
      return Succeed(id, gang.result());
    case Verdict::Kind::kWorkerFault:
    case Verdict::Kind::kTaskFault:
    case Verdict::Kind::kMoved:
    case Verdict::Kind::kRefused:
      return Restart(id, verdict);
    case Verdict::Kind::kFatal:
    case Verdict::Kind::kStopped:
      break;
  }
  StopJob(id, JOB_FAILED, verdict.reason_code, verdict.error_code, verdict.cause);
}

void Turn::Succeed(const JobId& id, const JobResult& result) {
  const Job& job = state_.jobs.at(id);
  if (job.state() == JOB_STARTING) {
    JobChange running;
    running.to = JOB_RUNNING;
    running.reason_code = "STARTED";
    MoveJob(id, running);
  }
  const bool wants_model = !state_.Spec(id).register_as.empty();
  if (wants_model && result.model_manifest().empty()) {
    return StopJob(id, JOB_FAILED, "NO_MODEL", "INTERNAL",
                   "rank 0 finished without a model to register");
  }
  if (wants_model) RegisterResult(job, result);
  JobChange change;
  change.to = JOB_SUCCEEDED;
  change.reason_code = "SUCCEEDED";
  change.result = &result;
  MoveJob(id, change);
}

// Every task is gone and the work is not done. Too many restarts of one kind end the job.
void Turn::Restart(const JobId& id, const Verdict& verdict) {
  const Job& job = state_.jobs.at(id);
  const spec::RestartSpec& restart = state_.Spec(id).restart;
  JobChange change;
  change.to = JOB_RECOVERING;
  change.reason_code = verdict.reason_code;
  change.cause = verdict.cause;
  change.worker_restarts = verdict.kind == Verdict::Kind::kWorkerFault ? 1 : 0;
  change.task_restarts = verdict.kind == Verdict::Kind::kTaskFault ? 1 : 0;
  const uint32_t workers = job.worker_restarts() + change.worker_restarts;
  const uint32_t tasks = job.task_restarts() + change.task_restarts;
  const auto limit = static_cast<uint32_t>(std::max(restart.max, 0));
  if (workers > limit || tasks > limit) {
    return StopJob(id, JOB_FAILED, "RESTART_LIMIT", verdict.error_code,
                   fmt::format("restart.max: {} restarts were used up: {}", limit, verdict.cause));
  }
  change.retry_at_ms = now_;
  if (verdict.kind == Verdict::Kind::kRefused) {
    change.retry_at_ms += kRefusedRetryMs;
  } else if (verdict.kind != Verdict::Kind::kMoved) {
    change.retry_at_ms +=
        BackoffMs(Ms(restart.backoff), static_cast<int>(workers + tasks), options_.backoff_cap_ms);
  }
  MoveJob(id, change);
  if (verdict.mpi_over) return AwaitLauncher(id, verdict.cause);
  TickJob(id);
}

// Where it was it cannot begin again: there is nothing to wait for but workers of another launcher.
void Turn::AwaitLauncher(const JobId& id, const std::string& cause) {
  const auto& checkpoints = state_.jobs.at(id).checkpoints();
  JobChange change;
  change.to = JOB_QUEUED;
  change.reason_code = kMpiOver;
  change.cause = fmt::format(
      "{}; MPI cannot begin again in an mpirun or srun that has lost a rank: the job goes on in a "
      "new one, from {}",
      cause,
      checkpoints.empty()
          ? "its beginning"
          : fmt::format("its checkpoint of step {}", checkpoints[checkpoints.size() - 1].step()));
  MoveJob(id, change);
}

// Those that ended first go first. What a model or another job has of it is theirs.
void Turn::ForgetJobs() {
  const size_t keep = options_.keep_finished_jobs;
  for (int n = 0; keep > 0 && state_.finished.size() > keep && n < kForgottenAtOnce; ++n) {
    const JobId id = state_.finished.begin()->second;
    if (state_.gangs_of_job.contains(id)) return;  // when the last of it has ended
    std::vector<std::string> digests;
    ForEachPart(state_.jobs.at(id), [&](const auto& part) {
      ForEachObject(part, [&](const std::string& digest) { digests.push_back(digest); });
    });
    Record record;
    record.mutable_job_forgotten()->set_job_id(id.str());
    Persist(std::move(record));
    Forget(digests);
    effects_.ForgetJob(id);
  }
}

void Turn::TickJob(const JobId& id) {
  const Job& job = state_.jobs.at(id);
  if (IsTerminal(job.state())) return;
  if (job.deadline_ms() > 0 && now_ >= job.deadline_ms() && job.state() != JOB_STOPPING) {
    return StopJob(id, JOB_FAILED, "DEADLINE", "DEADLINE_EXCEEDED",
                   fmt::format("deadline: not done within {} s",
                               (job.deadline_ms() - job.submitted_ms()) / 1000));
  }
  const bool waits = job.state() == JOB_RECOVERING && job.retry_at_ms() > 0;
  if (!waits || now_ < job.retry_at_ms() || !LastGang(state_, id)) return;
  JobChange change;
  change.to = JOB_QUEUED;
  change.reason_code = job.reason_code();
  change.cause = job.cause();
  MoveJob(id, change);
}

}  // namespace lepton::scheduler
