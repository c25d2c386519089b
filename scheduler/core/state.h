// All that the coordinator knows, as plain data: the fold of Apply over the journal's records. The
// same Apply runs when a record is made and when it is replayed, so a restart ends in the same
// state. Threads: one writer; readers on the same thread, or under the owner's lock.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/status.h"
#include "runtime/spec/job_spec.h"
#include "scheduler/core/records.pb.h"

namespace lepton::search {
class Searcher;
}

namespace lepton::scheduler {

class State {
 public:
  State();
  ~State();
  State(State&&) noexcept;
  State& operator=(State&&) noexcept;

  // ---- durable: equal after a replay ----
  uint64_t last_seq = 0;
  int64_t last_wall_ms = 0;
  uint64_t next_job = 1;
  // Of a new deployment. Above those of all that are gone: workers do not start a task again whose
  // id they have seen end.
  uint32_t next_replica = 0;
  std::map<JobId, Job> jobs;
  std::map<std::string, Gang> gangs;  // those that may have living tasks, by Gang.id
  std::map<WorkerId, Worker> workers;
  std::map<std::string, Model> models;
  std::map<std::string, Dataset> datasets;
  std::map<std::string, Deployment> deployments;

  // ---- derived from the above, kept up to date by Apply ----
  // Queue order: higher priority, then recovered jobs, then first come.
  using QueueKey = std::tuple<int, bool, uint64_t, JobId>;  // -priority, !front, submit_seq, id
  // QUEUED jobs, and tune jobs that run and may want more slots; by device ("cpu", "cuda").
  std::map<std::string, std::set<QueueKey>> queues;
  std::set<JobId> active;                        // jobs that are not terminal
  std::set<std::pair<int64_t, JobId>> finished;  // those that are; first the one that ended first
  std::map<WorkerId, uint32_t> used_slots;
  std::unordered_map<std::string, std::string> gang_of_task;  // of living gangs
  std::map<WorkerId, std::set<std::string>> tasks_of_worker;  // that are (or may be) alive
  std::map<JobId, std::set<std::string>> gangs_of_job;
  std::map<std::string, std::set<std::string>> gangs_of_deployment;
  std::unordered_map<std::string, JobId> job_of_key;  // idempotency key
  std::unordered_map<std::string, int> object_refs;
  std::map<JobId, std::shared_ptr<const spec::JobSpec>> specs;   // of active jobs
  std::map<JobId, std::unique_ptr<search::Searcher>> searchers;  // of active tune jobs

  // ---- queries ----
  const Job* FindJob(const JobId& id) const;
  // Why FindJob has none: kNotFound.
  Status NoJob(const JobId& id) const;
  const Gang* FindGang(std::string_view id) const;
  const Gang* GangOfTask(const std::string& task_id) const;
  const Task* FindTask(const std::string& task_id) const;
  // Tasks of a job that are (or may be) alive, over all its gangs; else those of its last gang.
  std::vector<const Task*> TasksOf(const JobId& id) const;
  const spec::JobSpec& Spec(const JobId& id) const;  // of an active job
  uint32_t FreeSlots(const WorkerId& id) const;      // 0 unless the worker is UP
  bool ObjectInUse(const std::string& digest) const;

  // "digits@3", "digits@prod", "digits" (the newest). kNotFound names what is there. `field` starts
  // the message. The pointers hold until the next Apply.
  struct FoundModel {
    const Model* model = nullptr;
    const ModelVersion* version = nullptr;
    std::string name;  // "digits@3"
  };
  Result<FoundModel> FindModel(std::string_view field, std::string_view reference) const;
  struct FoundDataset {
    const Dataset* dataset = nullptr;
    const DatasetVersion* version = nullptr;
    std::string name;
  };
  Result<FoundDataset> FindDataset(std::string_view field, std::string_view reference) const;

  // Replicas that take requests now, by replica number.
  struct Route {
    std::string task_id;
    std::string host;
    uint16_t port = 0;
    WorkerId worker;
  };
  std::vector<Route> Routes(const std::string& deployment) const;

  // ---- snapshot ----
  // Empty for more than 2 GiB.
  std::string Snapshot() const;
  // kDataLoss: not a snapshot, or one that contradicts itself. kFailedPrecondition: newer version.
  static Result<State> Restore(std::string_view bytes);
};

// Applies one record. kDataLoss: it does not fit this state (wrong seq, unknown job, illegal
// transition); the state is then undefined. An OK Apply of a record made by the reactor is certain.
// `events` (may be null) gets what happened, for people.
Status Apply(const Record& record, State& state, std::vector<Event>* events = nullptr);
// Parses a journal entry and applies it.
Status ApplyBytes(std::string_view record, State& state);

// Why each queued job waits: "needs 2 x 1 slots, 1 free of 4", "behind j12". Pure.
std::map<JobId, std::string> WaitingReasons(const State& state);
std::string WaitingReason(const State& state, const JobId& id);
// Why a deployment has fewer replicas than it is to have: "needs 1 x 1 slots, 0 free of 2, 2 held
// by job j7". Empty when all of them have their place.
std::string ReplicasWait(const State& state, const Deployment& deployment);

}  // namespace lepton::scheduler
