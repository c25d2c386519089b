// Keeps a worker's objects within a limit: those that were not used for longest go first, for they
// can be fetched again. What a task of this worker reads, or what is still to be uploaded, stays,
// even over the limit. Agents that share a folder respect each other: what one holds counts as used
// a moment ago for the others.
// Threads: any; a thread of its own looks now and then.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "runtime/base/clock.h"
#include "storage/objects/object_store.h"

namespace lepton::worker {

class ObjectCache {
 public:
  struct Options {
    uint64_t limit_bytes = uint64_t{32} << 30;  // 0: none
    Duration interval = std::chrono::seconds(30);
    // An object that was used since then stays; several intervals, for those who share the folder.
    Duration idle = std::chrono::minutes(5);
  };

  // The store must outlive this.
  ObjectCache(storage::ObjectStore* store, Options options);
  ~ObjectCache();

  // Objects that stay as long as the hold lives, those that are not there yet included.
  using Hold = std::shared_ptr<void>;
  Hold Keep(const std::vector<storage::Digest>& digests);

  // Something may be in the way now: the thread looks soon.
  void Look();
  // What the thread does. Returns how many bytes went.
  uint64_t Trim();

 private:
  void Run();
  std::map<storage::Digest, int> Held();

  storage::ObjectStore* const store_;
  const Options options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false, look_ = false;
  std::map<storage::Digest, int> held_;  // and by how many holds
  std::thread thread_;
};

}  // namespace lepton::worker
