// What becomes of searches: asked, told, trials moved, ended.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "scheduler/core/applier.h"
#include "scheduler/core/index.h"
#include "scheduler/core/job_state.h"
#include "scheduler/search/searcher.h"

namespace lepton::scheduler {

Status Applier::Stepped(const SearchStepped& stepped) {
  Job* job = FindJob(stepped.job_id());
  auto searcher = state_.searchers.find(JobId(stepped.job_id()));
  if (job == nullptr || searcher == state_.searchers.end()) {
    return NotThere("search of job", stepped.job_id());
  }
  const SearchStep& step = stepped.step();
  if (step.trial() < 0 || step.trial() > job->trials_size() ||
      (!step.ask() && step.trial() == job->trials_size())) {
    return NotThere("trial", fmt::format("{}.t{}", job->id(), step.trial()));
  }
  LEPTON_RETURN_IF_ERROR(RepeatSearchStep(*searcher->second, step));
  *job->add_search_log() = step;
  if (step.ask()) {
    if (step.trial() == job->trials_size()) job->add_trials()->set_index(step.trial());
    Trial& trial = *job->mutable_trials(step.trial());
    trial.set_state(TRIAL_PENDING);
    *trial.mutable_values() = step.values();
    trial.set_budget(step.budget());
    trial.set_rung(step.rung());
  } else if (!step.failed()) {
    Trial& trial = *job->mutable_trials(step.trial());
    trial.set_has_value(true);
    trial.set_value(step.value());
    trial.set_reached(step.budget());
  }
  return Status::Ok();
}

Status Applier::Moved(const TrialMoved& moved) {
  Job* job = FindJob(moved.job_id());
  if (job == nullptr || moved.trial() < 0 || moved.trial() >= job->trials_size()) {
    return NotThere("trial", fmt::format("{}.t{}", moved.job_id(), moved.trial()));
  }
  Trial& trial = *job->mutable_trials(moved.trial());
  Event event;
  event.set_type("trial");
  event.set_from(std::string(TrialStateName(trial.state())));
  event.set_to(std::string(TrialStateName(moved.to())));
  event.set_reason_code(moved.reason_code());
  event.set_cause(moved.error().empty() ? moved.cause() : moved.error());
  event.set_attempt(moved.attempt());
  event.set_trial(moved.trial());
  trial.set_state(moved.to());
  trial.set_attempt(moved.attempt());
  trial.set_worker_restarts(moved.worker_restarts());
  trial.set_task_restarts(moved.task_restarts());
  trial.set_retry_at_ms(moved.retry_at_ms());
  trial.set_error_code(moved.error_code());
  trial.set_error(moved.error());
  if (moved.has_result()) {
    AddRefs(state_, moved.result());
    DropRefs(state_, trial.result());
    *trial.mutable_result() = moved.result();
  }
  Happened(std::move(event), job);
  return Status::Ok();
}

// What only a search that goes on needs is let go: checkpoints, and the models that lost.
Status Applier::Ended(const TuneEnded& ended) {
  Job* job = FindJob(ended.job_id());
  if (job == nullptr) return NotThere("job", ended.job_id());
  job->set_best_trial(ended.best_trial());
  for (Trial& trial : *job->mutable_trials()) {
    for (const Checkpoint& checkpoint : trial.checkpoints()) DropRefs(state_, checkpoint);
    trial.clear_checkpoints();
    if (trial.state() == TRIAL_PAUSED || trial.state() == TRIAL_PENDING) {
      trial.set_state(trial.has_value() ? TRIAL_DONE : TRIAL_FAILED);
    }
    if (trial.index() == ended.best_trial()) continue;
    DropRefs(state_, trial.result());
    trial.mutable_result()->clear_model_manifest();
    trial.mutable_result()->clear_objects();
  }
  return Status::Ok();
}

}  // namespace lepton::scheduler
