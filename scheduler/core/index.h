// Keeps the derived half of State in step with its durable half. Used by Apply and Restore only.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "scheduler/core/state.h"

namespace lepton::scheduler {

// What a trial that is never stopped uses: steps if the spec has them, else epochs.
int64_t TrialBudget(const spec::JobSpec& spec);

bool IsAlive(const Task& task);
// Of a job that the coordinator named: 12 of "j12".
bool NumberOf(const JobId& id, uint64_t* number);

// Where the job stands in a queue, and whether it does.
State::QueueKey QueueKeyOf(const Job& job);
bool IsQueued(const Job& job);

// Calls `f(digest)` for each object that the message keeps alive.
template <typename F>
void ForEachObject(const JobResult& result, F f) {
  if (!result.model_manifest().empty()) f(result.model_manifest());
  for (const std::string& digest : result.objects()) f(digest);
}
template <typename F>
void ForEachObject(const Checkpoint& checkpoint, F f) {
  f(checkpoint.manifest());
  for (const std::string& digest : checkpoint.objects()) f(digest);
}
template <typename F>
void ForEachObject(const wire::TaskCheckpointSlice& slice, F f) {
  f(slice.object());
}
template <typename F>
void ForEachObject(const Shards& shards, F f) {
  for (const ShardResult& result : shards.results()) {
    if (!result.object().empty()) f(result.object());
  }
  if (!shards.file().empty()) f(shards.file());
}
template <typename F>
void ForEachObject(const JobInputs& inputs, F f) {
  for (const auto* refs :
       {&inputs.dataset_objects(), &inputs.model_objects(), &inputs.teacher_objects()}) {
    for (const wire::ObjectRef& ref : *refs) f(ref.digest());
  }
}
template <typename F>
void ForEachObject(const ModelVersion& version, F f) {
  f(version.manifest());
  for (const std::string& digest : version.objects()) f(digest);
}
template <typename F>
void ForEachObject(const DatasetVersion& version, F f) {
  for (const wire::ObjectRef& ref : version.objects()) f(ref.digest());
}
template <typename F>
void ForEachObject(const Deployment& deployment, F f) {
  for (const wire::ObjectRef& ref : deployment.model_objects()) f(ref.digest());
}

// Calls `f` with each message of the job that keeps objects alive.
template <typename F>
void ForEachPart(const Job& job, F f) {
  f(job.inputs());
  f(job.result());
  f(job.shards());
  for (const Checkpoint& checkpoint : job.checkpoints()) f(checkpoint);
  for (const Trial& trial : job.trials()) {
    f(trial.result());
    for (const Checkpoint& checkpoint : trial.checkpoints()) f(checkpoint);
  }
}

template <typename Message>
void AddRefs(State& state, const Message& message) {
  ForEachObject(message, [&](const std::string& digest) { ++state.object_refs[digest]; });
}
template <typename Message>
void DropRefs(State& state, const Message& message) {
  ForEachObject(message, [&](const std::string& digest) {
    auto it = state.object_refs.find(digest);
    if (it != state.object_refs.end() && --it->second <= 0) state.object_refs.erase(it);
  });
}

// Of checkpoints that a gang has begun.
std::vector<std::string> IncompleteObjects(const Gang& gang);

// Around a change of job.state, front or priority.
void Unqueue(State& state, const Job& job);
void Enqueue(State& state, const Job& job);

// Parses the spec and, for a tune job, makes its searcher and repeats its calls. kDataLoss when
// that gives other answers than the log has.
Status ActivateJob(State& state, const Job& job);
// Forgets what only active jobs need.
void DeactivateJob(State& state, const Job& job);
// One call of the searcher; kDataLoss when it answers otherwise.
Status RepeatSearchStep(search::Searcher& searcher, const SearchStep& step);

void IndexGang(State& state, const Gang& gang);
void IndexTask(State& state, const Gang& gang, const Task& task);
void UnindexGang(State& state, const Gang& gang);
// A task of an indexed gang is no more.
void ReleaseTask(State& state, const Task& task);

// Everything from scratch, over empty derived fields.
Status IndexAll(State& state);

}  // namespace lepton::scheduler
