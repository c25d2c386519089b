// What a worker's tasks have to say, in order and without loss: a report stays here until the
// coordinator acknowledged it, and is sent again after a reconnect.
//
//   held --Release--> waiting --TakeSendable: gets its number--> sent --Ack--> gone
//                        ^                                         |
//                        +-- Replay (after a reconnect): same number
//
// Behind a held report (its objects are still being uploaded, which may take minutes) the task's
// later ones wait, but for those that say how it goes: progress, log lines, and what a gang needs
// to recover, that its process is gone among it. Only what has no number yet is thinned out:
// progress to its newest, logs to a byte limit with a note. Started, endpoint, checkpoint, ready
// and finished are never dropped. Threads: one.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "runtime/wire/messages.pb.h"

namespace lepton::worker {

class ReportOutbox {
 public:
  // At most `window` unacknowledged reports of a task are under way; at most `log_bytes` of its
  // log lines wait.
  explicit ReportOutbox(size_t window = 256, size_t log_bytes = size_t{4} << 20)
      : window_(window), log_bytes_(log_bytes) {}

  // Returns the entry's name for Release. Ignored (0) after the task's finished report.
  uint64_t Add(const std::string& task_id, wire::TaskReport report, bool held = false);
  // The held report may go, as `report`.
  void Release(const std::string& task_id, uint64_t entry, wire::TaskReport report);

  // Gives every report that may be sent now to `send`, once. Ends at the first that it does not
  // take, which comes again with the next call.
  void TakeSendable(const std::function<bool(const wire::TaskReport&)>& send);
  // All up to `seq` are safe with the coordinator.
  void Ack(const std::string& task_id, uint64_t seq);
  // A new connection: all that is not acknowledged is to be sent again.
  void Replay();
  // The coordinator does not know this task.
  void Forget(const std::string& task_id) { tasks_.erase(task_id); }

  bool empty() const { return tasks_.empty(); }
  bool Has(const std::string& task_id) const { return tasks_.contains(task_id); }
  // Whether a report of the task waits for Release, and so those that may not overtake it.
  bool Holds(const std::string& task_id) const;
  // Tasks with something unacknowledged or unfinished, and their newest numbers.
  std::vector<wire::RunningTask> Tasks() const;

 private:
  struct Entry {
    uint64_t name = 0;
    wire::TaskReport report;  // report.seq is 0 until it has a number
    bool held = false;
    bool sent = false;
  };
  struct Task {
    std::deque<Entry> entries;
    uint64_t last_seq = 0;
    size_t waiting_log_bytes = 0;
    bool finished = false;
  };
  using Place = std::deque<Entry>::iterator;
  Place Thin(Task& task, wire::TaskReport& report, Place place);

  const size_t window_;
  const size_t log_bytes_;
  std::map<std::string, Task> tasks_;
  uint64_t next_name_ = 1;
};

}  // namespace lepton::worker
