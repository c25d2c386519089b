// Uploads the objects that reports name, one report after the other, so that the agent's thread
// never waits for a transfer. Threads: Add and Tasks from one thread; `done` runs on the uploader's
// own.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "runtime/wire/messages.pb.h"
#include "worker/object_transfer.h"

namespace lepton::worker {

class Uploader {
 public:
  // The report as it may be sent now: a checkpoint that could not be stored becomes a log line, a
  // finish whose model could not be stored a failure. `entry` is the caller's.
  using Done = std::function<void(uint64_t entry, wire::TaskReport report)>;

  Uploader(ObjectTransfer* objects, Done done);
  ~Uploader();  // call objects->Shutdown() first; what is queued is dropped

  // The objects that must be with the coordinator before the report, the manifest last: whoever
  // finds a manifest finds all of it.
  static std::vector<storage::Digest> ObjectsOf(const wire::TaskReport& report);
  // `hold` keeps them in the local store until they are uploaded.
  void Add(uint64_t entry, wire::TaskReport report, std::shared_ptr<void> hold);
  // Whose reports wait. One whose objects do not move waits for a minute at most.
  std::set<std::string> Tasks() const;

 private:
  void Run();
  wire::TaskReport Upload(wire::TaskReport report);

  ObjectTransfer* const objects_;
  const Done done_;
  std::atomic<bool> stopping_{false};
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  struct Item {
    uint64_t entry = 0;
    wire::TaskReport report;
    std::shared_ptr<void> hold;
  };
  std::deque<Item> queue_;
  std::string current_;  // the task of the one that was taken from the queue
  std::thread thread_;
};

}  // namespace lepton::worker
