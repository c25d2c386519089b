// Everything that can happen to the scheduler. The reactor knows the world only through these: no
// clock, no socket, no file. Threads: plain values.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/status.h"
#include "runtime/spec/job_spec.h"
#include "runtime/wire/messages.pb.h"
#include "scheduler/core/records.pb.h"

namespace lepton::scheduler {

// ---- from clients: each gets exactly one Reply -------------------------------------------------

// `spec` is valid and its references are resolved in `inputs` (every object that they name is in
// the coordinator's store). An empty id is chosen by the reactor; a chosen one has no dot in it.
// The same idempotency key, or the same id with an equal spec, gives the first job back.
struct SubmitJob {
  JobId id;
  std::string idempotency_key;
  spec::JobSpec spec;
  JobInputs inputs;
};
struct CancelJob {
  JobId id;
  std::string cause;  // "asked by key ci"
};
// `model` is "name@version", resolved.
struct CreateDeployment {
  spec::DeploymentSpec spec;
  std::string model;
  std::string model_manifest;
  std::vector<wire::ObjectRef> model_objects;  // incl. the manifest
};
struct ScaleDeployment {
  std::string name;
  int replicas = 1;  // 0..64
};
struct DeleteDeployment {
  std::string name;
};
// A new version of a dataset; the same manifest as the newest version gives that one back.
struct CreateDataset {
  std::string name;
  std::string manifest;
  std::vector<wire::ObjectRef> objects;  // incl. the manifest
  int64_t rows = 0;
};
// A new version of a model that no job of ours made (an import).
struct RegisterModel {
  std::string name;
  std::string manifest;
  std::vector<std::string> objects;  // incl. the manifest
  std::map<std::string, double> metrics;
};
struct SetAlias {
  std::string name;
  std::string alias;
  uint32_t version = 0;
};
// No new work goes there; what runs there moves elsewhere.
struct DrainWorker {
  WorkerId id;
  std::string reason;
};

// ---- from workers -----------------------------------------------------------------------------

// After every connect. `running` must name every task that has a process or an unacknowledged
// report: what is missing counts as lost. Answered by Effects::Welcome.
struct WorkerHello {
  wire::Hello hello;
};
// Its lease ran out, or it said Goodbye.
struct WorkerLost {
  WorkerId id;
  std::string reason;
};
// It takes no new tasks, and says Goodbye once those that it has are at their end.
struct WorkerLeaving {
  WorkerId id;
};
// They have ended, and their last reports wait for objects that are on their way. Said again and
// again while those move.
struct TasksStoring {
  WorkerId worker;
  std::vector<std::string> tasks;
};
struct TaskReported {
  WorkerId worker;
  wire::TaskReport report;
};

// ---- from the store ---------------------------------------------------------------------------

// All of a job's shards were put into one durable object, in order; or why not. An error of the
// disk alone changes nothing: it is tried again.
struct ShardsStored {
  JobId job;
  Status status;
  std::string object;
  uint64_t bytes = 0;
  int bad_shard = -1;  // of an error: whose object is missing or not what it was; it is done again
};

// ---- time -------------------------------------------------------------------------------------

// At least when Reactor::next_timer_ms() says so.
struct Tick {};

struct Input {
  // Milliseconds since the Unix epoch; a value below an earlier one counts as that one.
  int64_t wall_ms = 0;
  uint64_t request = 0;  // echoed in Reply; 0: no reply wanted
  std::variant<Tick, SubmitJob, CancelJob, CreateDeployment, ScaleDeployment, DeleteDeployment,
               CreateDataset, RegisterModel, SetAlias, DrainWorker, WorkerHello, WorkerLost,
               WorkerLeaving, TasksStoring, TaskReported, ShardsStored>
      body;
};

}  // namespace lepton::scheduler
