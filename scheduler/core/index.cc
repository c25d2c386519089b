#include "scheduler/core/index.h"

#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>

#include "scheduler/core/job_state.h"
#include "scheduler/search/searcher.h"

namespace lepton::scheduler {

int64_t TrialBudget(const spec::JobSpec& spec) {
  return spec.steps > 0 ? spec.steps : spec.epochs;
}

bool IsAlive(const Task& task) {
  return task.state() == TASK_PLACED || task.state() == TASK_STARTED;
}

bool NumberOf(const JobId& id, uint64_t* number) {
  const std::string& text = id.str();
  const char* const end = text.data() + text.size();
  return text.size() > 1 && text.size() < 17 && text[0] == 'j' &&
         std::from_chars(text.data() + 1, end, *number).ptr == end;
}

State::QueueKey QueueKeyOf(const Job& job) {
  return {-job.priority(), !job.front(), job.submit_seq(), JobId(job.id())};
}

bool IsQueued(const Job& job) {
  if (job.state() == JOB_QUEUED) return true;
  return job.kind() == "tune" && (job.state() == JOB_STARTING || job.state() == JOB_RUNNING);
}

void Unqueue(State& state, const Job& job) {
  if (!IsQueued(job)) return;
  const std::string& device = state.Spec(JobId(job.id())).resources.device;
  auto it = state.queues.find(device);
  if (it == state.queues.end()) return;
  it->second.erase(QueueKeyOf(job));
  if (it->second.empty()) state.queues.erase(it);
}

void Enqueue(State& state, const Job& job) {
  if (!IsQueued(job)) return;
  state.queues[state.Spec(JobId(job.id())).resources.device].insert(QueueKeyOf(job));
}

namespace {

Result<std::shared_ptr<const spec::JobSpec>> ParseSpec(const Job& job) {
  const auto document = nlohmann::json::parse(job.spec_json(), nullptr, false);
  if (document.is_discarded()) return DataLoss(fmt::format("job {}: spec: bad JSON", job.id()));
  Result<spec::JobSpec> spec = spec::JobSpecFromJson(document);
  if (!spec.ok()) return DataLoss(fmt::format("job {}: {}", job.id(), spec.status().message()));
  return std::make_shared<const spec::JobSpec>(std::move(spec).value());
}

}  // namespace

Status RepeatSearchStep(search::Searcher& searcher, const SearchStep& step) {
  if (!step.ask()) {
    searcher.Tell({step.trial(), step.budget(), step.rung(), step.failed(), step.value()});
    return Status::Ok();
  }
  const auto suggestion = searcher.Ask();
  // Not its values, which count as the journal has them: another CPU's or library's exp and log may
  // differ in the last bit.
  if (!suggestion || suggestion->trial != step.trial() || suggestion->budget != step.budget() ||
      suggestion->rung != step.rung()) {
    return DataLoss(
        fmt::format("search: the journal has trial {} with budget {}, the searcher says otherwise",
                    step.trial(), step.budget()));
  }
  return Status::Ok();
}

Status ActivateJob(State& state, const Job& job) {
  const JobId id(job.id());
  LEPTON_ASSIGN_OR_RETURN(auto spec, ParseSpec(job));
  if (spec->search) {
    auto searcher = search::MakeSearcher(*spec->search, TrialBudget(*spec));
    if (!searcher.ok()) return DataLoss(searcher.status().message());
    for (const SearchStep& step : job.search_log()) {
      LEPTON_RETURN_IF_ERROR(RepeatSearchStep(**searcher, step));
    }
    state.searchers[id] = std::move(searcher).value();
  }
  state.specs[id] = std::move(spec);
  state.active.insert(id);
  Enqueue(state, job);
  return Status::Ok();
}

void DeactivateJob(State& state, const Job& job) {
  const JobId id(job.id());
  state.active.erase(id);
  state.specs.erase(id);
  state.searchers.erase(id);
}

void IndexGang(State& state, const Gang& gang) {
  if (gang.deployment().empty()) {
    state.gangs_of_job[JobId(gang.job_id())].insert(gang.id());
  } else {
    state.gangs_of_deployment[gang.deployment()].insert(gang.id());
  }
  for (const Task& task : gang.tasks()) IndexTask(state, gang, task);
}

void IndexTask(State& state, const Gang& gang, const Task& task) {
  state.gang_of_task[task.id()] = gang.id();
  if (!IsAlive(task)) return;
  state.used_slots[WorkerId(task.worker_id())] += task.slots();
  state.tasks_of_worker[WorkerId(task.worker_id())].insert(task.id());
}

void ReleaseTask(State& state, const Task& task) {
  const WorkerId worker(task.worker_id());
  auto used = state.used_slots.find(worker);
  used->second -= task.slots();
  auto tasks = state.tasks_of_worker.find(worker);
  tasks->second.erase(task.id());
  if (!tasks->second.empty()) return;
  state.tasks_of_worker.erase(tasks);
  state.used_slots.erase(used);
}

void UnindexGang(State& state, const Gang& gang) {
  auto erase = [&](auto& index, const auto& key) {
    auto it = index.find(key);
    if (it == index.end()) return;
    it->second.erase(gang.id());
    if (it->second.empty()) index.erase(it);
  };
  if (gang.deployment().empty()) {
    erase(state.gangs_of_job, JobId(gang.job_id()));
  } else {
    erase(state.gangs_of_deployment, gang.deployment());
  }
  for (const Task& task : gang.tasks()) state.gang_of_task.erase(task.id());
}

std::vector<std::string> IncompleteObjects(const Gang& gang) {
  std::vector<std::string> digests;
  const auto add = [&](const std::string& digest) { digests.push_back(digest); };
  for (const wire::TaskCheckpointSlice& slice : gang.slices()) ForEachObject(slice, add);
  for (const Checkpoint& checkpoint : gang.incomplete()) ForEachObject(checkpoint, add);
  return digests;
}

Status IndexAll(State& state) {
  for (const auto& [id, job] : state.jobs) {
    ForEachPart(job, [&](const auto& part) { AddRefs(state, part); });
    if (!job.idempotency_key().empty()) state.job_of_key[job.idempotency_key()] = id;
    if (IsTerminal(job.state())) {
      state.finished.emplace(job.finished_ms(), id);
    } else {
      LEPTON_RETURN_IF_ERROR(ActivateJob(state, job));
    }
  }
  for (const auto& [id, gang] : state.gangs) {
    IndexGang(state, gang);
    AddRefs(state, gang.result());
    for (const wire::TaskCheckpointSlice& slice : gang.slices()) AddRefs(state, slice);
    for (const Checkpoint& checkpoint : gang.incomplete()) AddRefs(state, checkpoint);
  }
  for (const auto& [name, model] : state.models) {
    for (const ModelVersion& version : model.versions()) AddRefs(state, version);
  }
  for (const auto& [name, dataset] : state.datasets) {
    for (const DatasetVersion& version : dataset.versions()) AddRefs(state, version);
  }
  for (const auto& [name, deployment] : state.deployments) AddRefs(state, deployment);
  return Status::Ok();
}

}  // namespace lepton::scheduler
