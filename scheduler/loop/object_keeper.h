// Deletes objects that the state has let go, but not at once: a worker may be about to report the
// same bytes, and a request may have found an object stored and be about to refer to it.
// Threads: any.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "runtime/base/clock.h"
#include "scheduler/core/state.h"
#include "storage/objects/object_store.h"

namespace lepton::scheduler {

class ObjectKeeper {
 public:
  explicit ObjectKeeper(Duration delay = std::chrono::minutes(10)) : delay_(delay) {}

  // While any hold lives, nothing is deleted: take one from before an import until its job or
  // dataset is durable.
  using Hold = std::shared_ptr<void>;
  Hold HoldAll();

  // Candidates for deletion, `delay` from now.
  void Forget(const std::vector<std::string>& digests);
  // All that is stored: after a start, when what an earlier process had forgotten is unknown. Reads
  // the folders. Returns how many there are.
  size_t ForgetStored(const storage::ObjectStore& objects);
  // Somebody stored or found this object again: its delay starts over.
  void Touch(const std::string& digest);
  // Deletes what is due and that `state` does not use. Returns how many were deleted.
  size_t Collect(const State& state, storage::ObjectStore& objects);

 private:
  const Duration delay_;
  std::mutex mutex_;
  std::map<std::string, MonotonicTime> due_;
  std::shared_ptr<void> token_ = std::make_shared<int>(0);
};

}  // namespace lepton::scheduler
