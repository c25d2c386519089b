// The fold's working parts: one function per kind of record, grouped by subject into
// apply_{jobs,gangs,elastic,shards,search,catalog}.cc. Private to scheduler/core; everybody else
// calls Apply.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <vector>

#include "scheduler/core/state.h"

namespace lepton::scheduler {

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
  Status Regrouped(const GangRegrouped& change);
  Status Formed(const GangFormed& formed);
  Status CutOff(const LinksCut& found);
  Status Added(const SeatAdded& added);
  Status Leaving(const TaskLeaving& leaving);
  Status Dealt(const ShardsDealt& dealt);
  Status Noted(const JobNoted& noted);
  Status Spoiled(const ShardSpoiled& spoiled);
  Status Joined(const ShardsJoined& joined);
  Status Stepped(const SearchStepped& stepped);
  Status Moved(const TrialMoved& moved);
  Status Ended(const TuneEnded& ended);
  Status Joined(const Worker& worker);
  Status Moved(const WorkerMoved& moved);
  Status Forgotten(const WorkerForgotten& forgotten);
  Status Forgotten(const JobForgotten& forgotten);
  Status Registered(const ModelRegistered& registered);
  Status Set(const AliasSet& set);
  Status Registered(const DatasetRegistered& registered);
  Status Created(const Deployment& created);
  Status Changed(const DeploymentChanged& changed);
  Status Removed(const DeploymentRemoved& removed);

  void OnProgress(Gang& gang, const Task& task, const wire::TaskProgress& progress);
  void OnCheckpoint(Gang& gang, const wire::TaskCheckpoint& reported);
  void OnCheckpointSlice(Gang& gang, const wire::TaskCheckpointSlice& slice);
  void Complete(Gang& gang, const Checkpoint& checkpoint);
  void DropIncomplete(Gang& gang, uint64_t before_step);
  void OnFinished(Gang& gang, Task& task, const wire::TaskFinished& finished);
  void OnEndpoint(Gang& gang, Task& task, const wire::TaskEndpoint& endpoint);
  void OnStraggler(Gang& gang, const Task& from, const wire::TaskStraggler& told);
  void OnBusy(Gang& gang, Task& task, const wire::TaskBusy& busy);
  void OnGone(Gang& gang, Task& task, const wire::TaskGone& gone, int64_t wall_ms);
  void OnRecovered(Gang& gang, const wire::TaskRecovered& done);
  void OnShardsReady(Gang& gang, Task& task, const wire::TaskShardsReady& ready);
  void OnShardDone(Gang& gang, Task& task, const wire::TaskShardDone& done);
  // A task is gone; `died`: by no order of ours.
  void DropHand(const Gang& gang, Task& task, bool died);
  void RegroupSharded(Gang& gang, const GangRegrouped& change);
  void ShowShards(Job& job, Gang& gang);
  void KeepRecovery(Job& job, Recovery recovery);
  // apply_restarts.cc
  void NoteFailure(const Gang& gang, const Task& task, const wire::TaskFinished& finished,
                   int64_t wall_ms);
  void OpenRestart(Job& job, const JobMoved& moved);
  Recovery* RestartOf(const Gang& gang);  // under way; else null
  void CloseRestart(const Gang& gang, uint64_t step);
  void NoteFaultTime(Gang& gang, const Task& task, int64_t wall_ms);
  static Event MembershipEvent(const Gang& gang, const std::string& from, const std::string& to);

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

}  // namespace lepton::scheduler
