// Checkpoints become a job's when all of their objects are with the coordinator: ranks write
// slices, which come through the workers of each, and one of them the manifest.
#include <algorithm>

#include "scheduler/core/applier.h"
#include "scheduler/core/index.h"

namespace lepton::scheduler {
namespace {

bool HasAll(const Gang& gang, const Checkpoint& checkpoint) {
  return std::all_of(
      checkpoint.awaited().begin(), checkpoint.awaited().end(), [&](const std::string& object) {
        return std::any_of(gang.slices().begin(), gang.slices().end(),
                           [&](const auto& slice) { return slice.object() == object; });
      });
}

}  // namespace

void Applier::OnCheckpoint(Gang& gang, const wire::TaskCheckpoint& reported) {
  Checkpoint checkpoint;
  checkpoint.set_step(reported.step());
  checkpoint.set_manifest(reported.manifest());
  *checkpoint.mutable_metrics() = reported.metrics();
  *checkpoint.mutable_objects() = reported.objects();
  checkpoint.mutable_objects()->MergeFrom(reported.slices());
  *checkpoint.mutable_awaited() = reported.slices();
  checkpoint.set_wall_ms(record_.wall_ms());
  checkpoint.set_attempt(gang.attempt());
  if (HasAll(gang, checkpoint)) return Complete(gang, checkpoint);
  for (const Checkpoint& known : gang.incomplete()) {
    if (known.manifest() == checkpoint.manifest()) return;
  }
  AddRefs(state_, checkpoint);
  *gang.add_incomplete() = std::move(checkpoint);
}

void Applier::OnCheckpointSlice(Gang& gang, const wire::TaskCheckpointSlice& slice) {
  for (const wire::TaskCheckpointSlice& known : gang.slices()) {
    if (known.object() == slice.object()) return;
  }
  AddRefs(state_, slice);
  *gang.add_slices() = slice;
  for (int i = 0; i < gang.incomplete_size(); ++i) {
    if (!HasAll(gang, gang.incomplete(i))) continue;
    const Checkpoint checkpoint = gang.incomplete(i);
    DropRefs(state_, checkpoint);
    gang.mutable_incomplete()->DeleteSubrange(i, 1);
    return Complete(gang, checkpoint);
  }
}

// Reports of one rank come in order: what is older and still lacks something will always lack it.
void Applier::Complete(Gang& gang, const Checkpoint& checkpoint) {
  Job* const job = FindJob(gang.job_id());
  if (job == nullptr || gang.trial() >= job->trials_size()) return;
  auto* const all = gang.trial() < 0 ? job->mutable_checkpoints()
                                     : job->mutable_trials(gang.trial())->mutable_checkpoints();
  // One that was redone after a restart is the same, bit for bit.
  const bool known = std::any_of(all->begin(), all->end(), [&](const Checkpoint& one) {
    return one.manifest() == checkpoint.manifest();
  });
  if (!known) {
    Checkpoint* const added = all->Add();
    *added = checkpoint;
    added->clear_awaited();
    AddRefs(state_, *added);
    std::stable_sort(
        all->pointer_begin(), all->pointer_end(),
        [](const Checkpoint* a, const Checkpoint* b) { return a->step() < b->step(); });
  }
  DropIncomplete(gang, checkpoint.step() + 1);
}

void Applier::DropIncomplete(Gang& gang, uint64_t before_step) {
  const auto drop = [&](auto* list) {
    for (int i = list->size(); i-- > 0;) {
      if (list->Get(i).step() >= before_step) continue;
      DropRefs(state_, list->Get(i));
      list->DeleteSubrange(i, 1);
    }
  };
  drop(gang.mutable_slices());
  drop(gang.mutable_incomplete());
}

}  // namespace lepton::scheduler
