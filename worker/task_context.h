// What a task sees of the world: its orders, its objects, its gang and a way to report. One per
// task process. The agent is on the other end of a socket pair; if it dies, the task is killed by
// the kernel (PR_SET_PDEATHSIG). Threads: reports and stop_requested() from any thread, the rest
// from the task's main thread.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "collectives/communicator.h"
#include "runtime/base/status.h"
#include "runtime/spec/job_spec.h"
#include "runtime/wire/messages.pb.h"
#include "storage/objects/object_store.h"
#include "worker/membership.h"
#include "worker/shard_source.h"

namespace lepton::worker {

class TaskContext {
 public:
  virtual ~TaskContext() = default;

  virtual const wire::StartTask& start() const = 0;
  virtual const spec::JobSpec& spec() const = 0;  // parsed from start().spec_json()
  virtual storage::ObjectStore& objects() = 0;    // the worker's local store; inputs are in it

  // Listens, reports the endpoint, waits for the whole gang's addresses and joins. With size 1 it
  // makes a communicator of one without waiting. kCancelled when told to stop meanwhile.
  virtual Result<std::unique_ptr<collectives::Communicator>> JoinGang() = 0;

  // Collective over the ranks of `gang`: those that say the same `color` (>= 0) form a group of
  // their own, with the gang's time-outs; its tree of sums has so many leaves (0: one a rank).
  virtual Result<std::unique_ptr<collectives::Communicator>> JoinGroup(
      collectives::Communicator& gang, int color, int leaves) = 0;

  virtual void ReportProgress(const wire::TaskProgress& progress) = 0;
  // What they name must be in objects() already, but for `slices`, which other ranks report.
  virtual void ReportCheckpoint(const wire::TaskCheckpoint& checkpoint) = 0;
  virtual void ReportCheckpointSlice(const wire::TaskCheckpointSlice& slice) = 0;
  virtual void ReportReady(const std::string& host, uint16_t port, double warmup_ms) = 0;
  // Sets what TaskFinished carries beside the code and the message.
  virtual void SetResult(const wire::TaskFinished& result) = 0;

  // The task's place in an elastic gang, in place of JoinGang; null in another gang.
  virtual Membership* membership() { return nullptr; }

  // Where the task's work comes from, if its data is cut in shards (kind batch); null in another.
  virtual ShardSource* shards() { return nullptr; }

  // True after StopTask or SIGTERM (in an elastic gang after StopTask for all of it): leave the
  // loop at the next step boundary and return kCancelled.
  virtual bool stop_requested() const = 0;
};

// A task kind: returns when the work is done. The Status becomes TaskFinished{code, message}.
using TaskFunction = Status (*)(TaskContext&);
struct TaskKind {
  std::string_view name;  // StartTask.kind
  TaskFunction run;
};
// All kinds: task_list.cc.
const std::vector<TaskKind>& TaskKinds();

}  // namespace lepton::worker
