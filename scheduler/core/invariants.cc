#include "scheduler/core/invariants.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <vector>

#include "scheduler/core/elastic.h"
#include "scheduler/core/index.h"
#include "scheduler/core/job_state.h"
#include "scheduler/search/searcher.h"

namespace lepton::scheduler {
namespace {

#define LEPTON_RULE(condition, ...) \
  if (!(condition)) return Internal(fmt::format(__VA_ARGS__))

// The derived half is what the durable half says.
Status CheckIndex(const State& state) {
  Result<State> restored = State::Restore(state.Snapshot());
  LEPTON_RETURN_IF_ERROR(restored.status());
  const State& fresh = *restored;
  LEPTON_RULE(fresh.queues == state.queues, "queues differ from the jobs' states");
  LEPTON_RULE(fresh.active == state.active, "active jobs differ");
  LEPTON_RULE(fresh.finished == state.finished, "finished jobs differ");
  LEPTON_RULE(fresh.used_slots == state.used_slots, "slots in use differ from living tasks");
  LEPTON_RULE(fresh.gang_of_task == state.gang_of_task, "gang_of_task differs");
  LEPTON_RULE(fresh.tasks_of_worker == state.tasks_of_worker, "tasks_of_worker differs");
  LEPTON_RULE(fresh.gangs_of_job == state.gangs_of_job, "gangs_of_job differs");
  LEPTON_RULE(fresh.gangs_of_deployment == state.gangs_of_deployment,
              "gangs_of_deployment differs");
  LEPTON_RULE(fresh.job_of_key == state.job_of_key, "idempotency keys differ");
  LEPTON_RULE(fresh.object_refs == state.object_refs, "object references differ");
  LEPTON_RULE(fresh.Snapshot() == state.Snapshot(), "a restored snapshot differs");
  return Status::Ok();
}

Status CheckWorkers(const State& state) {
  for (const auto& [id, used] : state.used_slots) {
    auto it = state.workers.find(id);
    LEPTON_RULE(it != state.workers.end(), "tasks on unknown worker {}", id.str());
    LEPTON_RULE(it->second.state() != WORKER_LOST, "tasks on lost worker {}", id.str());
    LEPTON_RULE(used <= it->second.hello().slots(), "worker {} has {} of {} slots in use", id.str(),
                used, it->second.hello().slots());
  }
  return Status::Ok();
}

Status CheckGang(const State& state, const Gang& gang) {
  LEPTON_RULE(gang.tasks_size() > 0, "gang {} is empty", gang.id());
  int alive = 0, bad = 0;
  for (int rank = 0; rank < gang.tasks_size(); ++rank) {
    const Task& task = gang.tasks(rank);
    LEPTON_RULE(task.rank() == static_cast<uint32_t>(rank), "gang {}: rank {} out of place",
                gang.id(), rank);
    if (IsAlive(task)) {
      ++alive;
      LEPTON_RULE(
          state.workers.at(WorkerId(task.worker_id())).hello().incarnation() == task.incarnation(),
          "task {} lives on a worker process that is gone", task.id());
    } else if (task.code() != "OK" && IsMember(gang, task)) {
      ++bad;
    }
  }
  LEPTON_RULE(alive > 0, "gang {} has no living task and was not ended", gang.id());
  LEPTON_RULE(bad == 0 || gang.state() == GANG_STOPPING || gang.has_result(),
              "gang {} goes on without all of its ranks", gang.id());
  if (gang.elastic()) {
    LEPTON_RULE(gang.epoch() > 0 && gang.members_size() > 0, "gang {} has no members", gang.id());
    for (const uint32_t seat : gang.members()) {
      LEPTON_RULE(static_cast<int>(seat) < gang.tasks_size(), "gang {}: no seat {}", gang.id(),
                  seat);
      const Task& task = gang.tasks(static_cast<int>(seat));
      LEPTON_RULE(gang.forming() || gang.sharded() || task.group_epoch() == gang.epoch(),
                  "task {} is in a group that it was not told of", task.id());
    }
  }
  if (!gang.deployment().empty()) {
    LEPTON_RULE(state.deployments.contains(gang.deployment()), "gang {} of no deployment",
                gang.id());
    return Status::Ok();
  }
  const Job* job = state.FindJob(JobId(gang.job_id()));
  LEPTON_RULE(job != nullptr, "gang {} of no job", gang.id());
  LEPTON_RULE(!IsTerminal(job->state()), "job {} is {} and has living tasks", job->id(),
              JobStateName(job->state()));
  LEPTON_RULE(job->state() != JOB_QUEUED, "job {} is queued and has living tasks", job->id());
  if (gang.trial() < 0) {
    const auto& spec = state.Spec(JobId(job->id()));
    const bool one = spec.kind == spec::JobKind::kEvaluate;
    const int ranks = gang.elastic() ? gang.members_size() : gang.tasks_size();
    LEPTON_RULE(one || gang.winds_down() || gang.sharded() || ranks >= spec.resources.min_workers,
                "gang {} is smaller than min_workers", gang.id());
  } else {
    LEPTON_RULE(job->trials(gang.trial()).state() == TRIAL_RUNNING, "trial of gang {} is {}",
                gang.id(), TrialStateName(job->trials(gang.trial()).state()));
  }
  return Status::Ok();
}

// Each undone shard is in a hand as long as somebody is there to do it, no hand has one that is
// done, or one twice, and nobody who is gone holds any.
Status CheckShards(const State& state, const Gang& gang) {
  const Shards& shards = state.jobs.at(JobId(gang.job_id())).shards();
  std::vector<int> holders(static_cast<size_t>(shards.results_size()));
  int staying = 0;
  for (const Task& task : gang.tasks()) {
    LEPTON_RULE(IsAlive(task) || task.shards().empty(), "task {} is gone and holds shards",
                task.id());
    staying += IsUp(task) && task.takes_shards() && !task.leaving();
    std::set<uint32_t> own(task.shards().begin(), task.shards().end());
    LEPTON_RULE(static_cast<int>(own.size()) == task.shards_size(), "task {} has a shard twice",
                task.id());
    for (const uint32_t shard : own) {
      if (task.gone()) continue;  // others have them, too, and may have done them
      LEPTON_RULE(
          shard < holders.size() && shards.results(static_cast<int>(shard)).object().empty(),
          "task {} is to do shard {}, which is done", task.id(), shard);
      ++holders[shard];
    }
  }
  const auto done = std::count_if(shards.results().begin(), shards.results().end(),
                                  [](const auto& one) { return !one.object().empty(); });
  LEPTON_RULE(done == static_cast<int64_t>(shards.done()), "job {}: {} shards are done, not {}",
              gang.job_id(), done, shards.done());
  if (staying == 0 || gang.state() == GANG_STOPPING || gang.has_result()) return Status::Ok();
  for (size_t shard = 0; shard < holders.size(); ++shard) {
    LEPTON_RULE(holders[shard] > 0 || !shards.results(static_cast<int>(shard)).object().empty(),
                "gang {}: nobody has shard {}", gang.id(), shard);
  }
  return Status::Ok();
}

Status CheckIncomplete(const State& state, const Gang& gang) {
  for (const Checkpoint& checkpoint : gang.incomplete()) {
    const bool lacks = std::any_of(
        checkpoint.awaited().begin(), checkpoint.awaited().end(), [&](const std::string& object) {
          return std::none_of(gang.slices().begin(), gang.slices().end(),
                              [&](const auto& slice) { return slice.object() == object; });
        });
    LEPTON_RULE(lacks, "gang {}: checkpoint {} is whole", gang.id(), checkpoint.manifest());
  }
  for (const std::string& digest : IncompleteObjects(gang)) {
    LEPTON_RULE(state.ObjectInUse(digest), "gang {}: {} may be deleted", gang.id(), digest);
  }
  return Status::Ok();
}

Status CheckJob(const State& state, const Job& job) {
  auto it = state.gangs_of_job.find(JobId(job.id()));
  const size_t gangs = it == state.gangs_of_job.end() ? 0 : it->second.size();
  const bool tune = job.kind() == "tune";
  const bool lively = job.state() == JOB_STARTING || job.state() == JOB_RUNNING;
  LEPTON_RULE(tune || !lively || gangs == 1, "job {} is {} with {} gangs", job.id(),
              JobStateName(job.state()), gangs);
  LEPTON_RULE(tune || gangs <= 1, "job {} has {} gangs at once", job.id(), gangs);
  LEPTON_RULE(job.state() != JOB_STOPPING || gangs > 0, "job {} stops though nothing lives",
              job.id());
  LEPTON_RULE(job.state() != JOB_FAILED || !job.error().empty(), "job {} failed without a word",
              job.id());
  uint64_t step = 0;
  for (const Checkpoint& checkpoint : job.checkpoints()) {
    LEPTON_RULE(checkpoint.step() >= step, "job {}: checkpoints out of order", job.id());
    step = checkpoint.step();
    LEPTON_RULE(state.ObjectInUse(checkpoint.manifest()), "checkpoint {} may be deleted",
                checkpoint.manifest());
  }
  const std::set<std::string> none;
  for (const Trial& trial : job.trials()) {
    if (trial.state() != TRIAL_RUNNING) continue;
    const auto& ids = it == state.gangs_of_job.end() ? none : it->second;
    const auto runs = std::count_if(ids.begin(), ids.end(), [&](const std::string& id) {
      return state.FindGang(id)->trial() == trial.index();
    });
    LEPTON_RULE(runs == 1, "trial {} of job {} runs {} times", trial.index(), job.id(), runs);
  }
  return Status::Ok();
}

#undef LEPTON_RULE

}  // namespace

Status CheckInvariants(const State& state) {
  LEPTON_RETURN_IF_ERROR(CheckIndex(state));
  LEPTON_RETURN_IF_ERROR(CheckWorkers(state));
  for (const auto& [id, gang] : state.gangs) {
    LEPTON_RETURN_IF_ERROR(CheckGang(state, gang));
    LEPTON_RETURN_IF_ERROR(CheckIncomplete(state, gang));
    if (gang.sharded()) LEPTON_RETURN_IF_ERROR(CheckShards(state, gang));
  }
  for (const auto& [id, job] : state.jobs) LEPTON_RETURN_IF_ERROR(CheckJob(state, job));
  return Status::Ok();
}

}  // namespace lepton::scheduler
