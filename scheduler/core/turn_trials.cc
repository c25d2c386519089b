#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "scheduler/core/best_trial.h"
#include "scheduler/core/elastic.h"
#include "scheduler/core/index.h"
#include "scheduler/core/job_state.h"
#include "scheduler/core/queue.h"
#include "scheduler/core/turn.h"
#include "scheduler/search/searcher.h"

namespace lepton::scheduler {
namespace {

// The finish names the final metrics; what it leaves out was last seen in a progress report.
std::optional<double> MetricOf(const Gang& gang, const std::string& name) {
  for (const auto* metrics : {&gang.result().metrics(), &gang.progress().metrics()}) {
    auto it = metrics->find(name);
    if (it != metrics->end()) return it->second;
  }
  return std::nullopt;
}

}  // namespace

void Turn::MoveTrial(const JobId& id, int index, const TrialChange& change) {
  const Trial& trial = state_.jobs.at(id).trials(index);
  Record record;
  TrialMoved& moved = *record.mutable_trial_moved();
  moved.set_job_id(id.str());
  moved.set_trial(index);
  moved.set_to(change.to);
  moved.set_reason_code(change.reason_code);
  moved.set_cause(change.cause);
  moved.set_attempt(trial.attempt() + change.attempts);
  moved.set_worker_restarts(trial.worker_restarts() + change.worker_restarts);
  moved.set_task_restarts(trial.task_restarts() + change.task_restarts);
  moved.set_retry_at_ms(change.retry_at_ms);
  moved.set_error_code(change.error_code);
  moved.set_error(change.error);
  if (change.result != nullptr) *moved.mutable_result() = *change.result;
  Persist(std::move(record));
  reactor_.dirty_ = true;
}

void Turn::AskSearcher(const JobId& id) {
  const auto next = state_.searchers.at(id)->Peek();
  if (!next) return;
  Record record;
  record.mutable_search_stepped()->set_job_id(id.str());
  SearchStep& step = *record.mutable_search_stepped()->mutable_step();
  step.set_ask(true);
  step.set_trial(next->trial);
  step.set_budget(next->budget);
  step.set_rung(next->rung);
  const Job& job = state_.jobs.at(id);
  if (next->trial < job.trials_size()) {
    *step.mutable_values() = job.trials(next->trial).values();  // those that it began with
  } else {
    step.mutable_values()->insert(next->values.begin(), next->values.end());
  }
  Persist(std::move(record));
}

void Turn::TellSearcher(const JobId& id, int index, std::optional<double> value) {
  const Trial& trial = state_.jobs.at(id).trials(index);
  Record record;
  record.mutable_search_stepped()->set_job_id(id.str());
  SearchStep& step = *record.mutable_search_stepped()->mutable_step();
  step.set_trial(index);
  step.set_budget(trial.budget());
  step.set_rung(trial.rung());
  step.set_failed(!value.has_value());
  step.set_value(value.value_or(0));
  Persist(std::move(record));
}

bool Turn::StartTrial(const JobId& id, int index, const placement::Placement& placed) {
  const Job& job = state_.jobs.at(id);
  const spec::JobSpec& tune = state_.Spec(id);
  const Trial& trial = job.trials(index);
  const Result<spec::JobSpec> spec = TrialSpec(tune, trial);
  if (!spec.ok()) {
    FailTrial(id, index, "BAD_SPEC", std::string(StatusCodeName(spec.status().code())),
              spec.status().message());
    MaybeEndTune(id);
    return false;
  }
  if (job.state() == JOB_QUEUED) {
    JobChange starting;
    starting.to = JOB_STARTING;
    starting.reason_code = "PLACED";
    starting.cause = "its first trial has a place";
    starting.attempts = 1;
    MoveJob(id, starting);
  }
  TrialChange change;
  change.to = TRIAL_RUNNING;
  change.reason_code = "PLACED";
  change.cause = placed.reason;
  change.attempts = 1;
  MoveTrial(id, index, change);
  GangPlan plan;
  plan.gang.set_id(fmt::format("{}.t{}.a{}", id.str(), index, trial.attempt()));
  plan.gang.set_job_id(id.str());
  plan.gang.set_trial(index);
  plan.gang.set_kind("trial");
  plan.gang.set_attempt(trial.attempt());
  plan.workers = placed.workers;
  plan.slots = RequestOf(tune, job).slots;
  if (IsElastic(tune) && plan.workers.size() > 1) MakeElastic(plan);
  if (trial.checkpoints_size() > 0) {
    plan.gang.set_resume_checkpoint(trial.checkpoints(trial.checkpoints_size() - 1).manifest());
  }
  StartGang(std::move(plan));
  return true;
}

void Turn::OnTrialGangEnded(const Gang& gang, const Verdict& verdict) {
  const JobId id(gang.job_id());
  const Job& job = state_.jobs.at(id);
  const Trial& trial = job.trials(gang.trial());
  if (job.state() == JOB_STOPPING) {
    TrialChange stopped;
    stopped.to = trial.has_value() ? TRIAL_PAUSED : TRIAL_FAILED;  // what it reached before counts
    stopped.reason_code = job.reason_code();
    if (!trial.has_value()) {
      stopped.error_code = "CANCELLED";
      stopped.error = "the search was stopped";
    }
    MoveTrial(id, gang.trial(), stopped);
    return OnJobGangEnded(gang, verdict);
  }
  if (verdict.kind == Verdict::Kind::kSucceeded) {
    FinishTrial(id, gang.trial(), gang);
    return MaybeEndTune(id);
  }
  const bool worker = verdict.kind == Verdict::Kind::kWorkerFault;
  const bool task = verdict.kind == Verdict::Kind::kTaskFault;
  const spec::RestartSpec& restart = state_.Spec(id).restart;
  const uint32_t workers = trial.worker_restarts() + (worker ? 1 : 0);
  const uint32_t tasks = trial.task_restarts() + (task ? 1 : 0);
  const auto limit = static_cast<uint32_t>(std::max(restart.max, 0));
  const bool refused = verdict.kind == Verdict::Kind::kRefused;
  const bool again = worker || task || refused || verdict.kind == Verdict::Kind::kMoved;
  if (!again || workers > limit || tasks > limit) {
    FailTrial(id, gang.trial(), again ? "RESTART_LIMIT" : verdict.reason_code, verdict.error_code,
              verdict.cause);
    return MaybeEndTune(id);
  }
  TrialChange change;
  change.to = TRIAL_PENDING;
  change.reason_code = verdict.reason_code;
  change.cause = verdict.cause;
  change.worker_restarts = worker ? 1 : 0;
  change.task_restarts = task ? 1 : 0;
  if (refused) change.retry_at_ms = now_ + kRefusedRetryMs;
  if (worker || task) {
    const int64_t base =
        std::chrono::duration_cast<std::chrono::milliseconds>(restart.backoff).count();
    change.retry_at_ms =
        now_ + BackoffMs(base, static_cast<int>(workers + tasks), options_.backoff_cap_ms);
  }
  MoveTrial(id, gang.trial(), change);
}

void Turn::FinishTrial(const JobId& id, int index, const Gang& gang) {
  const spec::JobSpec& tune = state_.Spec(id);
  const Trial& trial = state_.jobs.at(id).trials(index);
  const std::optional<double> value = MetricOf(gang, tune.search->metric);
  if (!value || !std::isfinite(*value)) {
    return FailTrial(
        id, index, "NO_METRIC", "FAILED_PRECONDITION",
        fmt::format("search.metric: the trial reported no finite '{}'", tune.search->metric));
  }
  std::vector<std::string> before;
  ForEachObject(trial.result(), [&](const std::string& digest) { before.push_back(digest); });
  TrialChange change;
  change.to = trial.budget() >= TrialBudget(tune) ? TRIAL_DONE : TRIAL_PAUSED;
  change.reason_code = "REACHED";
  change.cause = fmt::format("{} = {} at {}", tune.search->metric, *value, trial.budget());
  change.result = &gang.result();
  MoveTrial(id, index, change);
  TellSearcher(id, index, value);
  Forget(before);
}

void Turn::FailTrial(const JobId& id, int index, const std::string& reason_code,
                     const std::string& error_code, const std::string& error) {
  TrialChange change;
  change.to = TRIAL_FAILED;
  change.reason_code = reason_code;
  change.error_code = error_code;
  change.error = error;
  MoveTrial(id, index, change);
  TellSearcher(id, index, std::nullopt);
}

void Turn::MaybeEndTune(const JobId& id) {
  const Job& job = state_.jobs.at(id);
  if (!state_.searchers.at(id)->Done() || state_.gangs_of_job.contains(id)) return;
  const int best = BestTrial(job, state_.Spec(id).search->mode == "max");
  if (best >= 0) {
    LetTrialsGo(id);
    return Succeed(id, JobResult(job.trials(best).result()));
  }
  const std::string first = job.trials_size() == 0 ? "" : job.trials(0).error();
  StopJob(id, JOB_FAILED, "ALL_TRIALS_FAILED", "FAILED_PRECONDITION",
          fmt::format("none of {} trials gave a model; the first: {}", job.trials_size(),
                      first.empty() ? "finished without a model" : first));
}

void Turn::LetTrialsGo(const JobId& id) {
  const Job& job = state_.jobs.at(id);
  std::vector<std::string> digests;
  for (const Trial& trial : job.trials()) {
    auto add = [&](const std::string& digest) { digests.push_back(digest); };
    for (const Checkpoint& checkpoint : trial.checkpoints()) ForEachObject(checkpoint, add);
    ForEachObject(trial.result(), add);
  }
  Record record;
  record.mutable_tune_ended()->set_job_id(id.str());
  record.mutable_tune_ended()->set_best_trial(
      BestTrial(job, state_.Spec(id).search->mode == "max"));
  Persist(std::move(record));
  Forget(digests);
}

}  // namespace lepton::scheduler
