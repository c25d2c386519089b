// Deletes objects that the state has let go, but not at once: a worker may be about to report the
// same bytes, and a request may have found an object stored and be about to refer to it. Beyond
// so many bytes the oldest go sooner, but for those that a worker has been told are there.
// Threads: any.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "runtime/base/clock.h"
#include "scheduler/core/state.h"
#include "storage/objects/object_store.h"

namespace lepton::scheduler {

class ObjectKeeper {
 public:
  struct Limits {
    Duration delay = std::chrono::minutes(10);
    uint64_t most_bytes = uint64_t{1} << 30;          // of what waits and nobody claims
    Duration least_delay = std::chrono::seconds(10);  // also beyond most_bytes
  };
  ObjectKeeper() : ObjectKeeper(Limits{}) {}
  explicit ObjectKeeper(Limits limits) : limits_(limits) {}

  // While any hold lives, nothing is deleted: take one from before an import until its job or
  // dataset is durable.
  using Hold = std::shared_ptr<void>;
  Hold HoldAll();

  // Candidates for deletion, at the latest `delay` from now.
  void Forget(const std::vector<std::string>& digests);
  // All that is stored: after a start, when what an earlier process had forgotten is unknown. Reads
  // the folders. Returns how many there are.
  size_t ForgetStored(const storage::ObjectStore& objects);
  // Somebody found this object again, and may name it: it has all of its delay before it, from now
  // or from when it is forgotten.
  void Touch(const std::string& digest);
  // Deletes what is due and that `state` does not use. Returns how many were deleted.
  size_t Collect(const State& state, storage::ObjectStore& objects);
  // The same for all that is forgotten, when nobody is left who could name any of it.
  size_t CollectAll(const State& state, storage::ObjectStore& objects);

 private:
  struct Forgotten {
    MonotonicTime since{}, due{};
    bool claimed = false;           // not before it is due
    std::optional<uint64_t> bytes;  // once it was looked at
  };
  void Add(const std::vector<std::string>& digests, bool claimed);
  // Those below: mutex_ held.
  size_t CollectDue(MonotonicTime now, const State& state, storage::ObjectStore& objects);
  void HastenOldest(MonotonicTime now, const storage::ObjectStore& objects);

  const Limits limits_;
  std::mutex mutex_;
  std::map<std::string, Forgotten> forgotten_;
  std::map<std::string, MonotonicTime> claims_;  // when they end
  std::shared_ptr<void> token_ = std::make_shared<int>(0);
};

}  // namespace lepton::scheduler
