// The one thread that owns the scheduler's state. Inputs from HTTP and from workers queue up here;
// the loop takes all that wait as one batch, runs the reactor over them, appends every record as
// one group commit (one fsync), and only then answers, sends and notifies. Queries run on the same
// thread between batches, so that they see committed state only and need no locks.
//
// If the journal cannot be written (disk full), nothing of the batch has happened: its callers get
// kResourceExhausted (or kUnavailable), the state is rebuilt from the store, the workers' sessions
// are dropped so that they report anew, and further inputs are refused until `retry_after`, when
// the next one tries again. Queries go on all the while.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "runtime/base/clock.h"
#include "runtime/base/status.h"
#include "scheduler/core/reactor.h"
#include "scheduler/loop/object_keeper.h"
#include "scheduler/loop/steady_wall.h"
#include "storage/metadata/metadata_store.h"

namespace lepton::scheduler {

// Where effects go. All calls on the loop's thread, after the commit; none may block.
class LoopSink {
 public:
  virtual ~LoopSink() = default;
  virtual void Welcome(const WorkerId& worker, const wire::Welcome& welcome) = 0;
  virtual void Start(const WorkerId& worker, const wire::StartTask& start) = 0;
  virtual void SendGroup(const WorkerId& worker, const wire::TaskGroup& group) = 0;
  virtual void SendShards(const WorkerId& worker, const wire::TaskShards& shards) = 0;
  virtual void Stop(const WorkerId& worker, const wire::StopTask& stop) = 0;
  virtual void Ack(const WorkerId& worker, const wire::ReportAck& ack) = 0;
  virtual void Drain(const WorkerId& worker, const wire::Drain& drain) = 0;
  virtual void Accepted(const JobId& job, int trial, const wire::TaskReport& report) = 0;
  // There is no such job any more.
  virtual void ForgetJob(const JobId& job) = 0;
  // Once a batch, last: `jobs` have new events, reports or a new state.
  virtual void Committed(const State& state, const std::set<JobId>& jobs) = 0;
  // The state was rebuilt and is older than what workers were told: drop their sessions.
  virtual void JournalFailed(const Status& status) = 0;
};

struct LoopOptions {
  ReactorOptions reactor;
  // And as many bytes as the last snapshot had: a large state is not written again and again.
  uint64_t snapshot_every_records = 5000;
  Duration retry_after = std::chrono::seconds(1);
  size_t max_batch = 1024;
};

class StateLoop {
 public:
  using Body = decltype(Input::body);
  // On the loop's thread, exactly once, unless the loop stops first.
  using Replied = std::function<void(const Reply&, const State&)>;
  using Query = std::function<void(const State&)>;
  // Checked right before the reactor runs; an error is the reply.
  using Guard = std::function<Status(const State&)>;

  // Replays the journal. `metadata`, `objects` and `clock` must outlive this. kDataLoss: the
  // journal does not add up.
  static Result<std::unique_ptr<StateLoop>> Open(storage::MetadataStore& metadata,
                                                 storage::ObjectStore& objects, Clock& clock,
                                                 LoopOptions options);
  ~StateLoop();  // Stop
  StateLoop(const StateLoop&) = delete;
  StateLoop& operator=(const StateLoop&) = delete;

  // Starts the thread. `sink` must outlive Stop.
  void Start(LoopSink& sink);
  // Finishes what is queued, then joins. What comes later is dropped.
  void Stop();

  // Any thread; never blocks.
  void Post(Body body, Replied replied = nullptr, Guard guard = nullptr);
  void Read(Query query);
  // Runs `query` once, `delay` from now.
  void After(Duration delay, Query query);

  ObjectKeeper& keeper() { return keeper_; }
  // Of queries: why the journal refused the last batch, some seconds ago at most; nothing can be
  // changed meanwhile.
  Status JournalRefuses() const;
  // After Stop, when no worker is left either: deletes all objects that nothing refers to.
  void CollectAll();

 private:
  struct Item {
    Body body;
    Replied replied;
    Guard guard;
  };
  struct Work {
    std::vector<Item> items;
    std::vector<Query> queries;
    bool more = false;  // items wait behind these
    bool stopping = false;
  };
  class Batch;

  StateLoop(storage::MetadataStore& metadata, storage::ObjectStore& objects, Clock& clock,
            LoopOptions options)
      : metadata_(metadata), objects_(objects), options_(std::move(options)), wall_(clock) {}

  Status Rebuild();
  void Run();
  Work Wait();
  MonotonicTime NextWake();  // mutex_ held
  void RunItems(std::vector<Item> items, bool more);
  void Refuse(std::vector<Item>& items, const Status& status);
  void Fail(std::vector<Item>& items, const Status& status);
  bool TickDue();
  void MaybeSnapshot();

  storage::MetadataStore& metadata_;
  storage::ObjectStore& objects_;
  const LoopOptions options_;
  ObjectKeeper keeper_;
  LoopSink* sink_ = nullptr;

  // The loop's thread only.
  std::unique_ptr<Reactor> reactor_;
  SteadyWall wall_;
  MonotonicTime caught_up_{};  // when nothing waited behind a batch
  bool catching_up_ = false;   // since the last Tick it stood still
  uint64_t snapshot_seq_ = 0;
  uint64_t snapshot_bytes_ = 0;  // of the newest
  uint64_t journal_bytes_ = 0;   // since
  MonotonicTime refuse_until_{};
  MonotonicTime next_tick_{};  // not before, so that a timer that stays due cannot spin
  Status refused_with_;
  bool refused_last_ = false;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Item> items_;
  std::vector<Query> queries_;
  std::multimap<MonotonicTime, Query> timers_;
  bool new_timer_ = false;  // the wait in progress may be too long
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace lepton::scheduler
