// The fold: one function per kind of record. Whatever decides is in the reactor; here things only
// become so, and a record that cannot be is refused.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "scheduler/core/applier.h"

namespace lepton::scheduler {
namespace {

constexpr uint32_t kRecordVersion = 1;
constexpr int kMaxEventsPerJob = 1000;

}  // namespace

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
    case Record::kGangRegrouped:
      return Regrouped(record_.gang_regrouped());
    case Record::kGangFormed:
      return Formed(record_.gang_formed());
    case Record::kLinksCut:
      return CutOff(record_.links_cut());
    case Record::kShardsDealt:
      return Dealt(record_.shards_dealt());
    case Record::kJobNoted:
      return Noted(record_.job_noted());
    case Record::kShardSpoiled:
      return Spoiled(record_.shard_spoiled());
    case Record::kShardsJoined:
      return Joined(record_.shards_joined());
    case Record::kSeatAdded:
      return Added(record_.seat_added());
    case Record::kTaskLeaving:
      return Leaving(record_.task_leaving());
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
    case Record::kJobForgotten:
      return Forgotten(record_.job_forgotten());
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
