// What the reactor wants done. The caller runs a batch of inputs, appends all persisted records as
// one group commit, and only then performs the other effects, in the order in which they came. If
// the commit fails it performs none of them and ends: the state in memory is ahead of the disk.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/status.h"
#include "runtime/wire/messages.pb.h"
#include "scheduler/core/records.pb.h"

namespace lepton::scheduler {

struct Reply {
  uint64_t request = 0;
  Status status;
  // Of what was made or changed: job id, deployment name, "model@2", "dataset@3", worker id.
  std::string id;
  bool existed = false;  // an idempotent repeat: nothing was made
};

// A record as the journal has it: equal records, equal bytes, in whatever order maps were filled.
std::string RecordBytes(const Record& record);

// A coordinator that was away, as seen once all workers have come back or are lost.
struct Return {
  int64_t away_ms = 0;         // from the last that is known of the one before to this one's start
  size_t back = 0, known = 0;  // workers
};

class Effects {
 public:
  virtual ~Effects() = default;

  // One journal entry. The reactor has applied it already.
  virtual void Persist(const Record& record) = 0;

  // To workers. An ObjectRef with bytes 0 is of a size that the reactor does not know.
  virtual void Welcome(const WorkerId& worker, const wire::Welcome& welcome) = 0;
  virtual void Start(const WorkerId& worker, const wire::StartTask& start) = 0;
  virtual void SendGroup(const WorkerId& worker, const wire::TaskGroup& group) = 0;
  virtual void SendShards(const WorkerId& worker, const wire::TaskShards& shards) = 0;
  virtual void Stop(const WorkerId& worker, const wire::StopTask& stop) = 0;
  virtual void Ack(const WorkerId& worker, const wire::ReportAck& ack) = 0;
  virtual void Drain(const WorkerId& worker, const wire::Drain& drain) = 0;

  // To clients.
  virtual void Answer(const Reply& reply) = 0;
  virtual void Notify(const Event& event) = 0;
  // A report that was new (no repeat), for logs and metric streams. `job` is empty for a replica,
  // `trial` is -1 for anything but a trial. Log lines are in no record: this is their only way out.
  virtual void Accepted(const JobId& job, int trial, const wire::TaskReport& report) = 0;

  // At most once, and only where there were workers before.
  virtual void Returned(const Return& seen) = 0;

  // There is no such job any more: what was kept of what it said may go.
  virtual void ForgetJob(const JobId& job) = 0;
  // Nothing in the state refers to these any more. Delete them after a while, and only if
  // State::ObjectInUse still says no: a worker may be about to report the same bytes.
  virtual void ForgetObjects(const std::vector<std::string>& digests) = 0;
};

}  // namespace lepton::scheduler
