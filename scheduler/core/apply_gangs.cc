// What becomes of gangs and their tasks: placed, reported on, lost, ended.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "scheduler/core/applier.h"
#include "scheduler/core/elastic.h"
#include "scheduler/core/index.h"
#include "scheduler/core/job_state.h"
#include "scheduler/search/searcher.h"

namespace lepton::scheduler {

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
  if (Job* job = FindJob(gang.job_id()); job != nullptr && job->bf16_sums().empty()) {
    job->set_bf16_sums(gang.bf16_sums());
  }
  if (Recovery* const restart = RestartOf(gang)) restart->set_agreed_ms(record_.wall_ms());
  // Other workers have another pace.
  if (Job* job = FindJob(gang.job_id()); gang.sharded()) job->mutable_shards()->clear_pace();
  if (gang.deployment().empty()) return Status::Ok();
  auto it = state_.deployments.find(gang.deployment());
  if (it == state_.deployments.end()) return NotThere("deployment", gang.deployment());
  it->second.set_next_replica(std::max(it->second.next_replica(), gang.attempt() + 1));
  return Status::Ok();
}

Status Applier::Moved(const GangMoved& moved) {
  Gang* gang = FindGang(moved.gang_id());
  if (gang == nullptr) return NotThere("gang", moved.gang_id());
  if (!moved.winds_down()) {
    gang->set_state(moved.to());
    if (moved.to() == GANG_RUNNING) {
      if (Recovery* const restart = RestartOf(*gang)) restart->set_running_ms(record_.wall_ms());
      // Its progress is by rows of all attempts.
      if (gang->sharded()) CloseRestart(*gang, gang->progress().step());
    }
    if (moved.to() != GANG_STOPPING) return Status::Ok();
    gang->set_stopping_ms(record_.wall_ms());
    if (moved.kill()) {
      gang->set_kills(gang->kills() + 1);
      return Status::Ok();
    }
  }
  // What follows from the end of all is not why they end.
  if (gang->winds_down()) return Status::Ok();
  if (moved.winds_down()) {
    gang->set_winds_down(true);
    Event event = MembershipEvent(*gang, "RUNNING", "RUNNING");
    event.set_reason_code(moved.stop_code());
    event.set_cause(moved.stop_cause() + ": all ranks leave, with a checkpoint");
    Happened(std::move(event), FindJob(gang->job_id()));
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
  for (const Task& task : gang->tasks()) {
    const auto worker = state_.workers.find(WorkerId(task.worker_id()));
    if (!ended.mpi_over() || worker == state_.workers.end()) continue;
    if (worker->second.hello().incarnation() == task.incarnation()) {
      worker->second.set_mpi_over(true);
    }
  }
  if (Job* job = FindJob(gang->job_id()); job != nullptr) {
    *job->mutable_last_tasks() = gang->tasks();
    for (Task& task : *job->mutable_last_tasks()) task.clear_endpoint();
    const int64_t fault_ms = gang->recovery().fault_ms();
    if (fault_ms > 0 && (job->fault_ms() == 0 || fault_ms < job->fault_ms())) {
      job->set_fault_ms(fault_ms);
    }
    job->set_last_ranks(
        static_cast<uint32_t>(gang->elastic() ? gang->members_size() : gang->tasks_size()));
  }
  DropRefs(state_, gang->result());
  DropIncomplete(*gang, std::numeric_limits<uint64_t>::max());
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
      OnEndpoint(*gang, *task, report.endpoint());
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
    case wire::TaskReport::kCheckpointSlice:
      OnCheckpointSlice(*gang, report.checkpoint_slice());
      break;
    case wire::TaskReport::kGone:
      OnGone(*gang, *task, report.gone(), report.wall_ms());
      break;
    case wire::TaskReport::kFinished: {
      const int64_t silent = report.finished().silent_since_ms();
      const int64_t failed_ms = silent > 0 ? silent : report.wall_ms();
      NoteFaultTime(*gang, *task, failed_ms);
      NoteFailure(*gang, *task, report.finished(), failed_ms);
      // An evaluation tells of no progress before its end.
      if (report.finished().code() == "OK") CloseRestart(*gang, gang->progress().step());
      OnFinished(*gang, *task, report.finished());
      break;
    }
    case wire::TaskReport::kRecovered:
      OnRecovered(*gang, report.recovered());
      break;
    case wire::TaskReport::kStraggler:
      OnStraggler(*gang, *task, report.straggler());
      break;
    case wire::TaskReport::kBusy:
      OnBusy(*gang, *task, report.busy());
      break;
    case wire::TaskReport::kShardsReady:
      OnShardsReady(*gang, *task, report.shards_ready());
      break;
    case wire::TaskReport::kShardDone:
      OnShardDone(*gang, *task, report.shard_done());
      break;
    case wire::TaskReport::kLog:
    case wire::TaskReport::kGroupFaults:
    case wire::TaskReport::BODY_NOT_SET:
      break;
  }
  return Status::Ok();
}

void Applier::OnProgress(Gang& gang, const Task& task, const wire::TaskProgress& progress) {
  // Getting ready is no progress yet, but a sign of life.
  gang.set_alive_ms(record_.wall_ms());
  if (progress.phase().empty()) gang.set_progressed(true);
  if (!IsLeader(gang, task)) return;
  Job* job = FindJob(gang.job_id());
  // Once the shards are known they say how far the work is.
  if (gang.sharded() && job != nullptr && job->shards().rows() > 0) return;
  Progress now;
  now.set_phase(progress.phase());
  now.set_phase_done(progress.phase_done());
  now.set_step(progress.step());
  now.set_total_steps(progress.total_steps());
  now.set_epoch(progress.epoch());
  now.set_samples_per_second(progress.samples_per_second());
  if (progress.has_samples()) *now.mutable_samples() = progress.samples();
  // A report names the metrics that it measured; the others keep their newest value.
  *now.mutable_metrics() = gang.progress().metrics();
  for (const auto& [name, value] : progress.metrics()) (*now.mutable_metrics())[name] = value;
  now.set_wall_ms(record_.wall_ms());
  *gang.mutable_progress() = now;
  if (job == nullptr) return;
  if (progress.phase().empty()) CloseRestart(gang, progress.step());
  if (gang.trial() < 0) {
    *job->mutable_progress() = std::move(now);
  } else if (gang.trial() < job->trials_size()) {
    *job->mutable_trials(gang.trial())->mutable_progress() = std::move(now);
  }
}

// It lives on for what it left: its place goes with its last report.
void Applier::OnGone(Gang& gang, Task& task, const wire::TaskGone& gone, int64_t wall_ms) {
  NoteFaultTime(gang, task, gone.silent_since_ms() > 0 ? gone.silent_since_ms() : wall_ms);
  task.set_gone(true);
  task.set_code(gone.code());
  task.set_message(gone.message());
  task.set_signal(gone.signal());
  task.set_silent_since_ms(gone.silent_since_ms());
  task.set_saved(gone.saved());
  if (gone.has_diverged()) *task.mutable_diverged() = gone.diverged();
}

void Applier::OnFinished(Gang& gang, Task& task, const wire::TaskFinished& finished) {
  ReleaseTask(state_, task);
  task.set_state(TASK_FINISHED);
  task.set_ended_ms(record_.wall_ms());
  task.set_code(finished.code());
  task.set_message(finished.message());
  task.set_exit_status(finished.exit_status());
  task.set_signal(finished.signal());
  task.set_silent_since_ms(finished.silent_since_ms());
  task.set_saved(finished.saved());
  task.set_refused(finished.refused());
  if (finished.has_diverged()) *task.mutable_diverged() = finished.diverged();
  if (gang.sharded()) {  // what its shards are is the result
    return DropHand(gang, task, finished.code() != "OK" && finished.code() != "CANCELLED");
  }
  if (finished.code() != "OK" || finished.signal() != 0 || gang.has_result()) return;
  // Of an elastic gang whoever led the group that finished has the model; by now another may lead.
  if (gang.elastic() ? finished.model_manifest().empty() : !IsLeader(gang, task)) return;
  JobResult& result = *gang.mutable_result();
  result.set_model_manifest(finished.model_manifest());
  *result.mutable_objects() = finished.objects();
  *result.mutable_metrics() = finished.metrics();
  result.set_steps(finished.steps());
  result.set_last_checkpoint(finished.last_checkpoint());
  *result.mutable_files() = finished.files();
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
    DropHand(*gang, task, /*died=*/true);
    return Status::Ok();
  }
  return NotThere("living task", lost.task_id());
}

}  // namespace lepton::scheduler
