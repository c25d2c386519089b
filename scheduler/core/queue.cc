#include "scheduler/core/queue.h"

#include <algorithm>

#include "scheduler/core/index.h"
#include "scheduler/search/searcher.h"

namespace lepton::scheduler {
namespace {

placement::Seat SeatOf(const Worker& worker) {
  placement::Seat seat;
  seat.worker = worker.id();
  seat.host = worker.hello().host();
  seat.world = worker.hello().launcher_world();
  seat.slots = seat.free = worker.hello().slots();
  seat.gpus = worker.hello().gpus();
  return seat;
}

}  // namespace

std::vector<placement::Seat> PoolSeats(const State& state) {
  std::vector<placement::Seat> seats;
  for (const auto& [id, worker] : state.workers) seats.push_back(SeatOf(worker));
  return seats;
}

std::vector<placement::Seat> SeatsOf(const State& state, const std::set<WorkerId>& away,
                                     const std::string& deployment) {
  std::map<WorkerId, uint32_t> load;
  if (!deployment.empty()) {
    if (auto it = state.gangs_of_deployment.find(deployment);
        it != state.gangs_of_deployment.end()) {
      for (const std::string& gang : it->second) {
        for (const Task& task : state.FindGang(gang)->tasks()) ++load[WorkerId(task.worker_id())];
      }
    }
  }
  std::vector<placement::Seat> seats;
  for (const auto& [id, worker] : state.workers) {
    if (worker.state() != WORKER_UP) continue;
    placement::Seat seat = SeatOf(worker);
    seat.free = away.contains(id) ? 0 : state.FreeSlots(id);
    if (auto it = load.find(id); it != load.end()) seat.load = it->second;
    seats.push_back(std::move(seat));
  }
  return seats;
}

placement::GangRequest RequestOf(const spec::JobSpec& spec, const Job& job) {
  placement::GangRequest request;
  const bool one = spec.kind == spec::JobKind::kEvaluate;
  request.min_workers = one ? 1 : spec.resources.min_workers;
  request.max_workers = one ? 1 : std::max(spec.resources.min_workers, spec.resources.max_workers);
  request.slots = static_cast<uint32_t>(std::max(spec.resources.slots_per_worker, 1));
  request.gpu = spec.resources.device == "cuda";
  request.one_world = spec.collectives == "mpi";
  request.excluded.insert(job.excluded_workers().begin(), job.excluded_workers().end());
  return request;
}

bool UsesGpu(const spec::JobSpec& spec) {
  return spec.resources.device == "cuda" || spec.collectives == "nccl";
}

std::optional<int> PendingTrial(const Job& job, int64_t now_ms) {
  for (const Trial& trial : job.trials()) {
    if (trial.state() == TRIAL_PENDING && trial.retry_at_ms() <= now_ms) return trial.index();
  }
  return std::nullopt;
}

bool WantsTrial(const State& state, const JobId& id, int64_t now_ms) {
  const int most = state.Spec(id).search->max_parallel;
  auto running = state.gangs_of_job.find(id);
  if (most > 0 && running != state.gangs_of_job.end() &&
      running->second.size() >= static_cast<size_t>(most)) {
    return false;
  }
  return PendingTrial(*state.FindJob(id), now_ms) || state.searchers.at(id)->Peek();
}

void FillInputs(const JobInputs& inputs,
                const google::protobuf::RepeatedPtrField<Checkpoint>& checkpoints,
                wire::StartTask* start) {
  start->set_dataset_manifest(inputs.dataset_manifest());
  start->set_model_manifest(inputs.model_manifest());
  start->set_teacher_manifest(inputs.teacher_manifest());
  start->set_tokenizer(inputs.tokenizer());
  for (const auto* refs :
       {&inputs.dataset_objects(), &inputs.model_objects(), &inputs.teacher_objects()}) {
    for (const wire::ObjectRef& ref : *refs) *start->add_inputs() = ref;
  }
  if (checkpoints.empty()) return;
  ForEachObject(checkpoints.Get(checkpoints.size() - 1),
                [&](const std::string& digest) { start->add_inputs()->set_digest(digest); });
}

std::map<JobId, std::string> WaitingReasons(const State& state) {
  std::map<JobId, std::string> reasons;
  const std::vector<placement::Seat> seats = SeatsOf(state, {});
  for (const auto& [device, queue] : state.queues) {
    std::string head;
    for (const auto& key : queue) {
      const JobId& id = std::get<JobId>(key);
      const Job& job = *state.FindJob(id);
      if (!head.empty()) {
        if (job.state() == JOB_QUEUED) reasons[id] = "behind " + head;
        continue;
      }
      const auto placed = placement::PlaceGang(seats, RequestOf(state.Spec(id), job));
      if (job.state() == JOB_QUEUED) {
        reasons[id] = seats.empty()            ? "no worker is up"
                      : placed.workers.empty() ? placed.reason
                                               : "starts now";
      } else if (!WantsTrial(state, id, state.last_wall_ms)) {
        continue;  // a search that wants nothing more for now
      }
      if (placed.workers.empty() && !placed.never) head = id.str();
    }
  }
  return reasons;
}

std::string WaitingReason(const State& state, const JobId& id) {
  const Job* job = state.FindJob(id);
  if (job == nullptr || job->state() != JOB_QUEUED) return "";
  return WaitingReasons(state)[id];
}

}  // namespace lepton::scheduler
