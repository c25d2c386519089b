// Uploads the objects that reports name, one report after the other, so that the agent's thread
// never waits for a transfer. Threads: Add from one thread; `done` runs on the uploader's own.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

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

  // True when the report names objects that must be with the coordinator before it.
  static bool Needs(const wire::TaskReport& report);
  void Add(uint64_t entry, wire::TaskReport report);

 private:
  void Run();
  wire::TaskReport Upload(wire::TaskReport report);

  ObjectTransfer* const objects_;
  const Done done_;
  std::atomic<bool> stopping_{false};
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::pair<uint64_t, wire::TaskReport>> queue_;
  std::thread thread_;
};

}  // namespace lepton::worker
