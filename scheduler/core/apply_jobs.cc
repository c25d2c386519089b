// What becomes of jobs: submitted, moved, a worker excluded, checkpoints dropped.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "scheduler/core/applier.h"
#include "scheduler/core/index.h"
#include "scheduler/core/job_state.h"
#include "scheduler/search/searcher.h"

namespace lepton::scheduler {

Status Applier::Submitted(const Job& submitted) {
  const JobId id(submitted.id());
  if (state_.jobs.contains(id)) {
    return DataLoss(fmt::format("record {}: job '{}' twice", record_.seq(), id.str()));
  }
  Job& job = state_.jobs[id];
  job = submitted;
  job.set_state(JOB_QUEUED);
  job.set_submit_seq(record_.seq());
  job.set_submitted_ms(record_.wall_ms());
  job.set_best_trial(-1);
  job.set_reason_code("SUBMITTED");
  uint64_t number = 0;
  if (NumberOf(id, &number)) state_.next_job = std::max(state_.next_job, number + 1);
  if (!job.idempotency_key().empty()) state_.job_of_key[job.idempotency_key()] = id;
  AddRefs(state_, job.inputs());
  LEPTON_RETURN_IF_ERROR(ActivateJob(state_, job));
  Event event;
  event.set_type("job");
  event.set_to(std::string(JobStateName(JOB_QUEUED)));
  event.set_reason_code("SUBMITTED");
  event.set_trial(-1);
  Happened(std::move(event), &job);
  return Status::Ok();
}

Status Applier::Moved(const JobMoved& moved) {
  Job* job = FindJob(moved.job_id());
  if (job == nullptr) return NotThere("job", moved.job_id());
  if (job->state() != moved.from() || !CanMove(moved.from(), moved.to())) {
    return DataLoss(fmt::format("record {}: job {} is {}: {} -> {} is no legal move", record_.seq(),
                                job->id(), JobStateName(job->state()), JobStateName(moved.from()),
                                JobStateName(moved.to())));
  }
  Unqueue(state_, *job);
  job->set_state(moved.to());
  job->set_front(moved.to() == JOB_QUEUED);
  job->set_reason_code(moved.reason_code());
  job->set_cause(moved.cause());
  job->set_attempt(moved.attempt());
  job->set_worker_restarts(moved.worker_restarts());
  job->set_task_restarts(moved.task_restarts());
  job->set_retry_at_ms(moved.retry_at_ms());
  job->set_stopping_to(moved.stopping_to());
  if (!moved.error_code().empty()) {
    job->set_error_code(moved.error_code());
    job->set_error(moved.error());
  }
  if (moved.to() == JOB_RUNNING && job->started_ms() == 0) job->set_started_ms(record_.wall_ms());
  if (moved.has_result()) {
    AddRefs(state_, moved.result());
    *job->mutable_result() = moved.result();
  }
  if (moved.to() == JOB_RECOVERING) OpenRestart(*job, moved);
  if (IsTerminal(moved.to())) {
    job->clear_restart();
    job->set_finished_ms(record_.wall_ms());
    DropRefs(state_, job->shards());
    if (job->has_shards()) {  // how much it was stays
      job->mutable_shards()->clear_results();
      job->mutable_shards()->clear_pace();
      job->mutable_shards()->clear_file();
    }
    DeactivateJob(state_, *job);
    state_.finished.emplace(job->finished_ms(), JobId(job->id()));
  } else {
    Enqueue(state_, *job);
  }
  Event event;
  event.set_type("job");
  event.set_from(std::string(JobStateName(moved.from())));
  event.set_to(std::string(JobStateName(moved.to())));
  event.set_reason_code(moved.reason_code());
  event.set_cause(moved.error().empty() ? moved.cause() : moved.error());
  event.set_attempt(moved.attempt());
  event.set_trial(-1);
  Happened(std::move(event), job);
  return Status::Ok();
}

Status Applier::Forgotten(const JobForgotten& forgotten) {
  const Job* job = FindJob(forgotten.job_id());
  if (job == nullptr) return NotThere("job", forgotten.job_id());
  const JobId id(job->id());
  if (!IsTerminal(job->state()) || state_.gangs_of_job.contains(id)) {
    return DataLoss(fmt::format("record {}: job {} is not over", record_.seq(), id.str()));
  }
  ForEachPart(*job, [this](const auto& part) { DropRefs(state_, part); });
  auto key = state_.job_of_key.find(job->idempotency_key());
  if (key != state_.job_of_key.end() && key->second == id) state_.job_of_key.erase(key);
  state_.finished.erase({job->finished_ms(), id});
  state_.jobs.erase(id);
  return Status::Ok();
}

Status Applier::Excluded(const WorkerExcluded& excluded) {
  Job* job = FindJob(excluded.job_id());
  if (job == nullptr) return NotThere("job", excluded.job_id());
  job->add_excluded_workers(excluded.worker_id());
  Event event;
  event.set_type("worker");
  event.set_subject(excluded.worker_id());
  event.set_to("EXCLUDED");
  event.set_reason_code("LOG_POLICY");
  event.set_cause(excluded.cause());
  event.set_trial(-1);
  Happened(std::move(event), job);
  return Status::Ok();
}

Status Applier::Dropped(const CheckpointsDropped& dropped) {
  Job* job = FindJob(dropped.job_id());
  if (job == nullptr || dropped.trial() >= job->trials_size()) {
    return NotThere("job or trial", dropped.job_id());
  }
  auto* all = dropped.trial() < 0 ? job->mutable_checkpoints()
                                  : job->mutable_trials(dropped.trial())->mutable_checkpoints();
  for (const std::string& manifest : dropped.manifests()) {
    for (int i = 0; i < all->size(); ++i) {
      if (all->Get(i).manifest() != manifest) continue;
      DropRefs(state_, all->Get(i));
      all->DeleteSubrange(i, 1);
      break;
    }
  }
  return Status::Ok();
}

}  // namespace lepton::scheduler
