// Wakes those who wait for something to happen to a job: long polls and followed feeds.
// Threads: the state loop's only.
#pragma once

#include <functional>
#include <list>
#include <map>
#include <set>

#include "runtime/base/ids.h"
#include "scheduler/core/state.h"

namespace lepton::api {

class JobWatch {
 public:
  // Called after each commit that touched the job, and once on closing; returns false when it has
  // had enough.
  using Callback = std::function<bool(const scheduler::State&)>;

  // Returns the ticket for Forget.
  uint64_t Watch(const JobId& job, Callback callback) {
    watchers_[job].push_back({++last_ticket_, std::move(callback)});
    return last_ticket_;
  }

  // It is not called any more: its client has an answer, or is gone. Not from within a callback.
  // A quiet job would keep it for as long as it is quiet.
  void Forget(const JobId& job, uint64_t ticket) {
    const auto found = watchers_.find(job);
    if (found == watchers_.end()) return;
    found->second.remove_if([&](const Watcher& watcher) { return watcher.ticket == ticket; });
    if (found->second.empty()) watchers_.erase(found);
  }

  size_t size() const {
    size_t size = 0;
    for (const auto& [job, watchers] : watchers_) size += watchers.size();
    return size;
  }

  // The coordinator stops: everybody gets a last call, and ends.
  void Close(const scheduler::State& state) {
    closing_ = true;
    const auto all = std::move(watchers_);
    watchers_.clear();
    for (const auto& [job, watchers] : all) {
      for (const Watcher& watcher : watchers) watcher.callback(state);
    }
  }
  bool closing() const { return closing_; }

  void OnCommitted(const scheduler::State& state, const std::set<JobId>& jobs) {
    for (const JobId& job : jobs) {
      const auto found = watchers_.find(job);
      if (found == watchers_.end()) continue;
      found->second.remove_if([&](const Watcher& watcher) { return !watcher.callback(state); });
      if (found->second.empty()) watchers_.erase(found);
    }
  }

 private:
  struct Watcher {
    uint64_t ticket;
    Callback callback;
  };
  std::map<JobId, std::list<Watcher>> watchers_;
  uint64_t last_ticket_ = 0;
  bool closing_ = false;
};

}  // namespace lepton::api
