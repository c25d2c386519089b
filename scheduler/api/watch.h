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

  void Watch(const JobId& job, Callback callback) { watchers_[job].push_back(std::move(callback)); }

  // The coordinator stops: everybody gets a last call, and ends.
  void Close(const scheduler::State& state) {
    closing_ = true;
    const auto all = std::move(watchers_);
    watchers_.clear();
    for (const auto& [job, callbacks] : all) {
      for (const Callback& callback : callbacks) callback(state);
    }
  }
  bool closing() const { return closing_; }

  void OnCommitted(const scheduler::State& state, const std::set<JobId>& jobs) {
    for (const JobId& job : jobs) {
      const auto found = watchers_.find(job);
      if (found == watchers_.end()) continue;
      found->second.remove_if([&](const Callback& callback) { return !callback(state); });
      if (found->second.empty()) watchers_.erase(found);
    }
  }

 private:
  std::map<JobId, std::list<Callback>> watchers_;
  bool closing_ = false;
};

}  // namespace lepton::api
