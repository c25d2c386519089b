// The fold: one function per kind of record. Whatever decides is in the reactor; here things only
// become so, and a record that cannot be is refused.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "scheduler/core/index.h"
#include "scheduler/core/job_state.h"
#include "scheduler/core/state.h"
#include "scheduler/search/searcher.h"

namespace lepton::scheduler {
namespace {

constexpr uint32_t kRecordVersion = 1;
constexpr int kMaxEventsPerJob = 1000;

class Applier {
 public:
  Applier(const Record& record, State& state, std::vector<Event>* events)
      : record_(record), state_(state), events_(events) {}

  Status Run();

 private:
  Status Submitted(const Job& submitted);
  Status Moved(const JobMoved& moved);
  Status Excluded(const WorkerExcluded& excluded);
  Status Dropped(const CheckpointsDropped& dropped);
  Status Placed(const Gang& gang);
  Status Moved(const GangMoved& moved);
  Status Ended(const GangEnded& ended);
  Status Reported(const wire::TaskReport& report);
  Status Lost(const TaskLost& lost);
  Status Stepped(const SearchStepped& stepped);
  Status Moved(const TrialMoved& moved);
  Status Ended(const TuneEnded& ended);
  Status Joined(const Worker& worker);
  Status Moved(const WorkerMoved& moved);
  Status Forgotten(const WorkerForgotten& forgotten);
  Status Registered(const ModelRegistered& registered);
  Status Set(const AliasSet& set);
  Status Registered(const DatasetRegistered& registered);
  Status Created(const Deployment& created);
  Status Changed(const DeploymentChanged& changed);
  Status Removed(const DeploymentRemoved& removed);

  void OnProgress(Gang& gang, const Task& task, const wire::TaskProgress& progress);
  void OnCheckpoint(Gang& gang, const wire::TaskCheckpoint& checkpoint);
  void OnFinished(Gang& gang, Task& task, const wire::TaskFinished& finished);

  Job* FindJob(const std::string& id);
  Gang* FindGang(const std::string& id);
  Status NotThere(std::string_view what, const std::string& id) const {
    return DataLoss(fmt::format("record {}: no {} '{}'", record_.seq(), what, id));
  }
  // Fills in seq and time, and tells everybody.
  void Happened(Event event, Job* job);

  const Record& record_;
  State& state_;
  std::vector<Event>* events_;
};

Status Applier::Run() {
  switch (record_.body_case()) {
    case Record::kJobSubmitted:
      return Submitted(record_.job_submitted());
    case Record::kJobMoved:
      return Moved(record_.job_moved());
    case Record::kWorkerExcluded:
      return Excluded(record_.worker_excluded());
    case Record::kCheckpointsDropped:
      return Dropped(record_.checkpoints_dropped());
    case Record::kGangPlaced:
      return Placed(record_.gang_placed());
    case Record::kGangMoved:
      return Moved(record_.gang_moved());
    case Record::kGangEnded:
      return Ended(record_.gang_ended());
    case Record::kTaskReported:
      return Reported(record_.task_reported());
    case Record::kTaskLost:
      return Lost(record_.task_lost());
    case Record::kSearchStepped:
      return Stepped(record_.search_stepped());
    case Record::kTrialMoved:
      return Moved(record_.trial_moved());
    case Record::kTuneEnded:
      return Ended(record_.tune_ended());
    case Record::kWorkerJoined:
      return Joined(record_.worker_joined());
    case Record::kWorkerMoved:
      return Moved(record_.worker_moved());
    case Record::kWorkerForgotten:
      return Forgotten(record_.worker_forgotten());
    case Record::kModelRegistered:
      return Registered(record_.model_registered());
    case Record::kAliasSet:
      return Set(record_.alias_set());
    case Record::kDatasetRegistered:
      return Registered(record_.dataset_registered());
    case Record::kDeploymentCreated:
      return Created(record_.deployment_created());
    case Record::kDeploymentChanged:
      return Changed(record_.deployment_changed());
    case Record::kDeploymentRemoved:
      return Removed(record_.deployment_removed());
    case Record::BODY_NOT_SET:
      break;
  }
  return DataLoss(fmt::format("record {}: of an unknown kind", record_.seq()));
}

Job* Applier::FindJob(const std::string& id) {
  auto it = state_.jobs.find(JobId(id));
  return it == state_.jobs.end() ? nullptr : &it->second;
}

Gang* Applier::FindGang(const std::string& id) {
  auto it = state_.gangs.find(id);
  return it == state_.gangs.end() ? nullptr : &it->second;
}

void Applier::Happened(Event event, Job* job) {
  event.set_seq(record_.seq());
  event.set_wall_ms(record_.wall_ms());
  if (job != nullptr) {
    event.set_job_id(job->id());
    *job->add_events() = event;
    const int over = job->events_size() - kMaxEventsPerJob;
    if (over > 0) job->mutable_events()->DeleteSubrange(0, over);
  }
  if (events_ != nullptr) events_->push_back(std::move(event));
}

// ---- jobs -------------------------------------------------------------------------------------

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
  const char* end = id.str().data() + id.str().size();
  if (id.str().size() > 1 && id.str().size() < 17 && id.str()[0] == 'j' &&
      std::from_chars(id.str().data() + 1, end, number).ptr == end) {
    state_.next_job = std::max(state_.next_job, number + 1);
  }
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
  if (IsTerminal(moved.to())) {
    job->set_finished_ms(record_.wall_ms());
    DeactivateJob(state_, *job);
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

// ---- gangs and tasks ----------------------------------------------------------------------------

Status Applier::Placed(const Gang& placed) {
  if (state_.gangs.contains(placed.id())) {
    return DataLoss(fmt::format("record {}: gang '{}' twice", record_.seq(), placed.id()));
  }
  Gang& gang = state_.gangs[placed.id()];
  gang = placed;
  gang.set_state(GANG_STARTING);
  gang.set_placed_ms(record_.wall_ms());
  gang.set_trigger_rank(-1);
  for (Task& task : *gang.mutable_tasks()) {
    task.set_state(TASK_PLACED);
    task.set_placed_ms(record_.wall_ms());
  }
  IndexGang(state_, gang);
  if (gang.deployment().empty()) return Status::Ok();
  auto it = state_.deployments.find(gang.deployment());
  if (it == state_.deployments.end()) return NotThere("deployment", gang.deployment());
  it->second.set_next_replica(std::max(it->second.next_replica(), gang.attempt() + 1));
  return Status::Ok();
}

Status Applier::Moved(const GangMoved& moved) {
  Gang* gang = FindGang(moved.gang_id());
  if (gang == nullptr) return NotThere("gang", moved.gang_id());
  gang->set_state(moved.to());
  if (moved.to() != GANG_STOPPING) return Status::Ok();
  gang->set_stopping_ms(record_.wall_ms());
  if (moved.kill()) {
    gang->set_kills(gang->kills() + 1);
    return Status::Ok();
  }
  gang->set_stop_code(moved.stop_code());
  gang->set_stop_cause(moved.stop_cause());
  gang->set_trigger_rank(moved.trigger_rank());
  return Status::Ok();
}

Status Applier::Ended(const GangEnded& ended) {
  Gang* gang = FindGang(ended.gang_id());
  if (gang == nullptr) return NotThere("gang", ended.gang_id());
  for (const Task& task : gang->tasks()) {
    if (IsAlive(task)) return DataLoss(fmt::format("task {} of an ended gang lives", task.id()));
  }
  if (Job* job = FindJob(gang->job_id()); job != nullptr) {
    *job->mutable_last_tasks() = gang->tasks();
    for (Task& task : *job->mutable_last_tasks()) task.clear_endpoint();
  }
  DropRefs(state_, gang->result());
  UnindexGang(state_, *gang);
  state_.gangs.erase(ended.gang_id());
  return Status::Ok();
}

Status Applier::Reported(const wire::TaskReport& report) {
  auto gang_id = state_.gang_of_task.find(report.task_id());
  Gang* gang = gang_id == state_.gang_of_task.end() ? nullptr : FindGang(gang_id->second);
  if (gang == nullptr) return NotThere("task", report.task_id());
  Task* task = nullptr;
  for (Task& one : *gang->mutable_tasks()) {
    if (one.id() == report.task_id()) task = &one;
  }
  if (task == nullptr || !IsAlive(*task) || report.seq() <= task->last_seq()) {
    return DataLoss(fmt::format("record {}: report {} of task {} comes too late", record_.seq(),
                                report.seq(), report.task_id()));
  }
  task->set_last_seq(report.seq());
  switch (report.body_case()) {
    case wire::TaskReport::kStarted:
      task->set_state(TASK_STARTED);
      task->set_pid(report.started().pid());
      task->set_started_ms(record_.wall_ms());
      break;
    case wire::TaskReport::kEndpoint:
      task->set_has_endpoint(true);
      task->set_endpoint(report.endpoint().address());
      break;
    case wire::TaskReport::kReady:
      task->set_ready_host(report.ready().host());
      task->set_ready_port(report.ready().port());
      break;
    case wire::TaskReport::kProgress:
      OnProgress(*gang, *task, report.progress());
      break;
    case wire::TaskReport::kCheckpoint:
      OnCheckpoint(*gang, report.checkpoint());
      break;
    case wire::TaskReport::kFinished:
      OnFinished(*gang, *task, report.finished());
      break;
    case wire::TaskReport::kLog:
    case wire::TaskReport::BODY_NOT_SET:
      break;
  }
  return Status::Ok();
}

void Applier::OnProgress(Gang& gang, const Task& task, const wire::TaskProgress& progress) {
  gang.set_progressed(true);
  if (task.rank() != 0) return;
  Progress now;
  now.set_step(progress.step());
  now.set_total_steps(progress.total_steps());
  now.set_epoch(progress.epoch());
  now.set_samples_per_second(progress.samples_per_second());
  // A report names the metrics that it measured; the others keep their newest value.
  *now.mutable_metrics() = gang.progress().metrics();
  for (const auto& [name, value] : progress.metrics()) (*now.mutable_metrics())[name] = value;
  now.set_wall_ms(record_.wall_ms());
  *gang.mutable_progress() = now;
  Job* job = FindJob(gang.job_id());
  if (job == nullptr) return;
  if (gang.trial() < 0) {
    *job->mutable_progress() = std::move(now);
  } else if (gang.trial() < job->trials_size()) {
    *job->mutable_trials(gang.trial())->mutable_progress() = std::move(now);
  }
}

void Applier::OnCheckpoint(Gang& gang, const wire::TaskCheckpoint& reported) {
  Job* job = FindJob(gang.job_id());
  if (job == nullptr || gang.trial() >= job->trials_size()) return;
  auto* all = gang.trial() < 0 ? job->mutable_checkpoints()
                               : job->mutable_trials(gang.trial())->mutable_checkpoints();
  for (const Checkpoint& known : *all) {
    if (known.manifest() == reported.manifest()) return;  // redone after a restart, bit for bit
  }
  Checkpoint* checkpoint = all->Add();
  checkpoint->set_step(reported.step());
  checkpoint->set_manifest(reported.manifest());
  *checkpoint->mutable_metrics() = reported.metrics();
  *checkpoint->mutable_objects() = reported.objects();
  checkpoint->set_wall_ms(record_.wall_ms());
  checkpoint->set_attempt(gang.attempt());
  AddRefs(state_, *checkpoint);
  std::stable_sort(all->pointer_begin(), all->pointer_end(),
                   [](const Checkpoint* a, const Checkpoint* b) { return a->step() < b->step(); });
}

void Applier::OnFinished(Gang& gang, Task& task, const wire::TaskFinished& finished) {
  ReleaseTask(state_, task);
  task.set_state(TASK_FINISHED);
  task.set_ended_ms(record_.wall_ms());
  task.set_code(finished.code());
  task.set_message(finished.message());
  task.set_exit_status(finished.exit_status());
  task.set_signal(finished.signal());
  if (task.rank() != 0 || finished.code() != "OK" || finished.signal() != 0) return;
  JobResult& result = *gang.mutable_result();
  result.set_model_manifest(finished.model_manifest());
  *result.mutable_objects() = finished.objects();
  *result.mutable_metrics() = finished.metrics();
  result.set_steps(finished.steps());
  result.set_last_checkpoint(finished.last_checkpoint());
  gang.set_result_ms(record_.wall_ms());
  AddRefs(state_, result);
}

Status Applier::Lost(const TaskLost& lost) {
  auto gang_id = state_.gang_of_task.find(lost.task_id());
  Gang* gang = gang_id == state_.gang_of_task.end() ? nullptr : FindGang(gang_id->second);
  if (gang == nullptr) return NotThere("task", lost.task_id());
  for (Task& task : *gang->mutable_tasks()) {
    if (task.id() != lost.task_id() || !IsAlive(task)) continue;
    ReleaseTask(state_, task);
    task.set_state(TASK_LOST);
    task.set_ended_ms(record_.wall_ms());
    task.set_code(std::string(StatusCodeName(StatusCode::kUnavailable)));
    task.set_message(lost.cause());
    return Status::Ok();
  }
  return NotThere("living task", lost.task_id());
}

// ---- searches ---------------------------------------------------------------------------------

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

// ---- workers ----------------------------------------------------------------------------------

Status Applier::Joined(const Worker& joined) {
  Worker& worker = state_.workers[WorkerId(joined.id())];
  Event event;
  event.set_type("worker");
  event.set_subject(joined.id());
  event.set_from(std::string(WorkerStateName(worker.state())));
  event.set_to(std::string(WorkerStateName(joined.state())));
  event.set_reason_code("JOINED");
  event.set_trial(-1);
  worker = joined;
  worker.set_since_ms(record_.wall_ms());
  Happened(std::move(event), nullptr);
  return Status::Ok();
}

Status Applier::Moved(const WorkerMoved& moved) {
  auto it = state_.workers.find(WorkerId(moved.worker_id()));
  if (it == state_.workers.end()) return NotThere("worker", moved.worker_id());
  Event event;
  event.set_type("worker");
  event.set_subject(moved.worker_id());
  event.set_from(std::string(WorkerStateName(it->second.state())));
  event.set_to(std::string(WorkerStateName(moved.to())));
  event.set_reason_code(moved.to() == WORKER_LOST ? "LOST" : "DRAIN");
  event.set_cause(moved.reason());
  event.set_trial(-1);
  it->second.set_state(moved.to());
  it->second.set_reason(moved.reason());
  it->second.set_since_ms(record_.wall_ms());
  Happened(std::move(event), nullptr);
  return Status::Ok();
}

Status Applier::Forgotten(const WorkerForgotten& forgotten) {
  if (state_.tasks_of_worker.contains(WorkerId(forgotten.worker_id()))) {
    return DataLoss(
        fmt::format("record {}: worker {} has tasks", record_.seq(), forgotten.worker_id()));
  }
  state_.workers.erase(WorkerId(forgotten.worker_id()));
  return Status::Ok();
}

// ---- models, datasets, deployments ------------------------------------------------------------

Status Applier::Registered(const ModelRegistered& registered) {
  Model& model = state_.models[registered.name()];
  model.set_name(registered.name());
  if (registered.version().version() != static_cast<uint32_t>(model.versions_size()) + 1) {
    return DataLoss(fmt::format("record {}: model {} has a gap", record_.seq(), model.name()));
  }
  ModelVersion& version = *model.add_versions();
  version = registered.version();
  version.set_created_ms(record_.wall_ms());
  AddRefs(state_, version);
  if (Job* job = FindJob(version.job_id()); job != nullptr) {
    job->set_model_name(model.name());
    job->set_model_version(version.version());
  }
  return Status::Ok();
}

Status Applier::Set(const AliasSet& set) {
  auto it = state_.models.find(set.name());
  if (it == state_.models.end()) return NotThere("model", set.name());
  (*it->second.mutable_aliases())[set.alias()] = set.version();
  return Status::Ok();
}

Status Applier::Registered(const DatasetRegistered& registered) {
  Dataset& dataset = state_.datasets[registered.name()];
  dataset.set_name(registered.name());
  if (registered.version().version() != static_cast<uint32_t>(dataset.versions_size()) + 1) {
    return DataLoss(fmt::format("record {}: dataset {} has a gap", record_.seq(), dataset.name()));
  }
  DatasetVersion& version = *dataset.add_versions();
  version = registered.version();
  version.set_created_ms(record_.wall_ms());
  AddRefs(state_, version);
  return Status::Ok();
}

Status Applier::Created(const Deployment& created) {
  if (state_.deployments.contains(created.name())) {
    return DataLoss(fmt::format("record {}: deployment '{}' twice", record_.seq(), created.name()));
  }
  Deployment& deployment = state_.deployments[created.name()];
  deployment = created;
  deployment.set_state(DEPLOYMENT_ACTIVE);
  deployment.set_created_ms(record_.wall_ms());
  AddRefs(state_, deployment);
  Event event;
  event.set_type("deployment");
  event.set_subject(created.name());
  event.set_to(std::string(DeploymentStateName(DEPLOYMENT_ACTIVE)));
  event.set_reason_code("CREATED");
  event.set_trial(-1);
  Happened(std::move(event), nullptr);
  return Status::Ok();
}

Status Applier::Changed(const DeploymentChanged& changed) {
  auto it = state_.deployments.find(changed.name());
  if (it == state_.deployments.end()) return NotThere("deployment", changed.name());
  Deployment& deployment = it->second;
  Event event;
  event.set_type("deployment");
  event.set_subject(changed.name());
  event.set_from(std::string(DeploymentStateName(deployment.state())));
  event.set_to(std::string(DeploymentStateName(changed.state())));
  event.set_reason_code(changed.state() == DEPLOYMENT_DELETING        ? "DELETED"
                        : changed.restarts() != deployment.restarts() ? "REPLICA_FAILED"
                                                                      : "SCALED");
  event.set_cause(changed.error());
  event.set_trial(-1);
  deployment.set_state(changed.state());
  deployment.set_replicas(changed.replicas());
  deployment.set_restarts(changed.restarts());
  deployment.set_failures_in_row(changed.failures_in_row());
  deployment.set_retry_at_ms(changed.retry_at_ms());
  deployment.set_error(changed.error());
  Happened(std::move(event), nullptr);
  return Status::Ok();
}

Status Applier::Removed(const DeploymentRemoved& removed) {
  auto it = state_.deployments.find(removed.name());
  if (it == state_.deployments.end()) return NotThere("deployment", removed.name());
  DropRefs(state_, it->second);
  state_.deployments.erase(it);
  Event event;
  event.set_type("deployment");
  event.set_subject(removed.name());
  event.set_from(std::string(DeploymentStateName(DEPLOYMENT_DELETING)));
  event.set_reason_code("REMOVED");
  event.set_trial(-1);
  Happened(std::move(event), nullptr);
  return Status::Ok();
}

}  // namespace

Status Apply(const Record& record, State& state, std::vector<Event>* events) {
  if (record.version() != kRecordVersion) {
    return FailedPrecondition(fmt::format("record {}: version {}, this program knows {}",
                                          record.seq(), record.version(), kRecordVersion));
  }
  if (record.seq() != state.last_seq + 1) {
    return DataLoss(fmt::format("record {} follows {}", record.seq(), state.last_seq));
  }
  LEPTON_RETURN_IF_ERROR(Applier(record, state, events).Run());
  state.last_seq = record.seq();
  state.last_wall_ms = std::max(state.last_wall_ms, record.wall_ms());
  return Status::Ok();
}

Status ApplyBytes(std::string_view bytes, State& state) {
  Record record;
  if (!record.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return DataLoss(fmt::format("record {}: not readable", state.last_seq + 1));
  }
  return Apply(record, state);
}

}  // namespace lepton::scheduler
