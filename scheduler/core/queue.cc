#include "scheduler/core/queue.h"

#include <fmt/format.h>

#include <algorithm>

#include "scheduler/core/elastic.h"
#include "scheduler/core/index.h"
#include "scheduler/core/job_state.h"
#include "scheduler/core/verdict.h"
#include "scheduler/search/searcher.h"

namespace lepton::scheduler {
namespace {

placement::Seat SeatOf(const Worker& worker) {
  placement::Seat seat;
  seat.worker = worker.id();
  seat.host = worker.hello().host();
  seat.world = worker.hello().launcher_world();
  seat.world_size = std::max(1u, worker.hello().launcher_size());
  seat.world_over = worker.mpi_over();
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
  std::set<WorkerId> in_use;
  for (const auto& [id, gang] : state.gangs) {
    if (!gang.mpi()) continue;
    for (const Task& task : gang.tasks()) in_use.insert(WorkerId(task.worker_id()));
  }
  std::vector<placement::Seat> seats;
  for (const auto& [id, worker] : state.workers) {
    if (worker.state() != WORKER_UP) continue;
    placement::Seat seat = SeatOf(worker);
    seat.free = away.contains(id) ? 0 : state.FreeSlots(id);
    if (auto it = load.find(id); it != load.end()) seat.load = it->second;
    seat.world_in_use = in_use.contains(id);
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
  request.gpu_each = request.gpu && spec.collectives == "nccl" && request.max_workers > 1;
  request.whole_world = UsesMpi(spec, request.max_workers);
  request.excluded.insert(job.excluded_workers().begin(), job.excluded_workers().end());
  return request;
}

bool UsesMpi(const spec::JobSpec& spec, int ranks) {
  return spec.collectives == "mpi" && ranks > 1 && !IsSharded(spec);
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

namespace {

// ", 2 held by deployment digits" and whoever else has slots; jobs only `with_jobs`.
std::string Holders(const State& state, bool with_jobs) {
  constexpr size_t kMost = 3;
  std::map<std::string, uint32_t> held;
  for (const auto& [id, gang] : state.gangs) {
    const bool job = gang.deployment().empty();
    if (job && !with_jobs) continue;
    const std::string owner = job ? "job " + gang.job_id() : "deployment " + gang.deployment();
    for (const Task& task : gang.tasks()) {
      if (IsAlive(task)) held[owner] += task.slots();
    }
  }
  std::erase_if(held, [](const auto& holder) { return holder.second == 0; });
  std::string text;
  size_t named = 0;
  for (const auto& [owner, slots] : held) {
    text += named++ == kMost ? ", ..." : fmt::format(", {} held by {}", slots, owner);
    if (named > kMost) break;
  }
  return text;
}

// Of a queued job or a search, when no one before it holds it up.
struct Prospect {
  std::string reason;     // of a job that is QUEUED
  bool holds_up = false;  // those behind it
};

Prospect LookAt(const State& state, const std::vector<placement::Seat>& seats, const JobId& id) {
  const Job& job = *state.FindJob(id);
  if (job.state() != JOB_QUEUED && !WantsTrial(state, id, state.last_wall_ms)) {
    return {};  // a search that wants nothing more for now
  }
  const auto placed = placement::PlaceGang(seats, RequestOf(state.Spec(id), job));
  Prospect prospect;
  prospect.holds_up = placed.workers.empty() && !placed.never;
  prospect.reason = seats.empty()            ? "no worker is up"
                    : placed.workers.empty() ? placed.reason + Holders(state, /*with_jobs=*/false)
                                             : "starts now";
  if (placed.never && job.reason_code() == kMpiOver) prospect.reason += "; " + job.cause();
  return prospect;
}

}  // namespace

std::map<JobId, std::string> WaitingReasons(const State& state) {
  std::map<JobId, std::string> reasons;
  const std::vector<placement::Seat> seats = SeatsOf(state, {});
  for (const auto& [device, queue] : state.queues) {
    std::string head;
    for (const auto& key : queue) {
      const JobId& id = std::get<JobId>(key);
      const bool queued = state.FindJob(id)->state() == JOB_QUEUED;
      if (!head.empty()) {
        if (queued) reasons[id] = "behind " + head;
        continue;
      }
      Prospect prospect = LookAt(state, seats, id);
      if (prospect.holds_up) head = id.str();
      if (queued) reasons[id] = std::move(prospect.reason);
    }
  }
  return reasons;
}

// No further than to the first that holds up the others: one view costs little in a long queue.
std::string WaitingReason(const State& state, const JobId& id) {
  const Job* job = state.FindJob(id);
  if (job == nullptr || job->state() != JOB_QUEUED) return "";
  const auto queue = state.queues.find(state.Spec(id).resources.device);
  if (queue == state.queues.end()) return "";
  const std::vector<placement::Seat> seats = SeatsOf(state, {});
  for (const auto& key : queue->second) {
    const JobId& other = std::get<JobId>(key);
    Prospect prospect = LookAt(state, seats, other);
    if (other == id) return prospect.reason;
    if (prospect.holds_up) return "behind " + other.str();
  }
  return "";
}

std::string AwaitedLauncher(const State& state, const JobId& id) {
  const Job* job = state.FindJob(id);
  if (job == nullptr || IsTerminal(job->state()) || state.gangs_of_job.contains(id)) return "";
  const placement::GangRequest request = RequestOf(state.Spec(id), *job);
  if (!request.whole_world) return "";
  const auto placed = placement::PlaceGang(SeatsOf(state, {}), request);
  if (!placed.never) return "";
  return job->attempt() == 0
             ? placed.reason
             : fmt::format("{}; {}", placed.reason, job->events().rbegin()->cause());
}

std::string ReplicasWait(const State& state, const Deployment& deployment) {
  size_t living = 0;
  if (const auto it = state.gangs_of_deployment.find(deployment.name());
      it != state.gangs_of_deployment.end()) {
    for (const std::string& id : it->second) {
      living += state.FindGang(id)->state() == GANG_STOPPING ? 0 : 1;
    }
  }
  if (living >= deployment.replicas()) return "";
  if (state.last_wall_ms < deployment.retry_at_ms()) return deployment.error();
  placement::GangRequest request;
  request.slots = deployment.slots_per_replica();
  const std::vector<placement::Seat> seats = SeatsOf(state, {}, deployment.name());
  const auto placed = placement::PlaceGang(seats, request);
  return seats.empty()            ? "no worker is up"
         : placed.workers.empty() ? placed.reason + Holders(state, /*with_jobs=*/true)
                                  : "starts now";
}

}  // namespace lepton::scheduler
