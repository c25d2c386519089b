// Whether a group is still alive, and if not, why: shared by a communicator's callers, its watcher
// thread and everything that waits for a peer.
// Threads: all calls from any thread, except AddWaker (before the group's threads start). Held by
//   shared_ptr, since handles may outlive their communicator.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "collectives/activity.h"
#include "runtime/base/clock.h"
#include "runtime/base/file.h"
#include "runtime/base/status.h"

namespace lepton::collectives {

class Failure {
 public:
  // kResourceExhausted or kInternal when the process has no file descriptor left.
  static Result<std::shared_ptr<Failure>> Make(int group_size);

  // Records the first cause and wakes everybody; later causes are dropped. True if it was the
  // first.
  bool Raise(Status cause);
  bool raised() const { return raised_.load(std::memory_order_acquire); }
  // OK while nothing was raised.
  Status cause() const;
  // True if raised, now or within `at_most`.
  bool WaitRaised(Duration at_most) const;
  // Readable once raised: for poll(2).
  int fd() const { return event_.get(); }
  // `wake` runs on the thread that raises, after raised() is true.
  void AddWaker(std::function<void()> wake);

  // A peer said goodbye: nothing more will come from it than what it already sent.
  void MarkLeft(int rank);
  bool HasLeft(int rank) const { return left_[rank].load(std::memory_order_acquire); }

  // Of this rank.
  Activity& activity() { return activity_; }
  const Activity& activity() const { return activity_; }

 private:
  Failure(int group_size, UniqueFd event) : event_(std::move(event)), left_(group_size) {}
  void Wake() const;

  UniqueFd event_;
  std::atomic<bool> raised_{false};
  std::vector<std::atomic<bool>> left_;
  Activity activity_;
  mutable std::mutex mutex_;
  mutable std::condition_variable raised_changed_;
  Status cause_;
  std::vector<std::function<void()>> wakers_;
};

}  // namespace lepton::collectives
