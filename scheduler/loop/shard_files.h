// Puts a job's shards, once all are done, into one object, in order, beside the loop. What is to be
// done follows from the state alone, so that nothing is lost with a coordinator: the next one
// begins it again, and the object has the same name for the same bytes. Where the disk has no room
// it is tried again every few seconds.
// Threads: Update on the loop's; the work on the pool's.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "runtime/base/ids.h"
#include "runtime/base/work_queue.h"
#include "scheduler/core/state.h"
#include "scheduler/loop/state_loop.h"
#include "storage/objects/object_store.h"

namespace lepton::scheduler {

class ShardFiles {
 public:
  // All outlive what runs on the pool.
  ShardFiles(storage::ObjectStore& objects, WorkQueue& pool, StateLoop& loop)
      : objects_(objects), pool_(pool), loop_(loop) {}

  // Begins what is due. Cheap when nothing is.
  void Update(const State& state);
  // What is under way ends without a result.
  void Stop() { stopping_ = true; }

 private:
  void Join(const JobId& id, const std::vector<storage::Digest>& parts);
  // It is not under way any more, and may be due still.
  void Again(const JobId& id, const State& state);

  storage::ObjectStore& objects_;
  WorkQueue& pool_;
  StateLoop& loop_;
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::set<JobId> under_way_;
};

// kResourceExhausted unless a file of so many bytes leaves the journal room on its disk: who tries
// and fails would fill it for everybody.
Status CheckRoom(uint64_t bytes, uint64_t available);

// The objects, one behind the other, as one durable object. `bad` is the part that an error is
// about, -1 for none: kNotFound or kDataLoss of it, else kResourceExhausted and the like.
// kCancelled when `stopping`.
Result<storage::Digest> JoinObjects(storage::ObjectStore& objects,
                                    const std::vector<storage::Digest>& parts,
                                    const std::atomic<bool>& stopping, uint64_t* bytes, int* bad);

}  // namespace lepton::scheduler
