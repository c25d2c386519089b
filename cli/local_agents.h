// Workers inside this process: one agent a thread. Their tasks are processes of their own, as
// everywhere.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "worker/agent.h"

namespace lepton::cli {

class LocalAgents {
 public:
  ~LocalAgents() { Stop(); }
  // Starts an agent. Its errors come out of Wait.
  Status Add(worker::AgentOptions options);
  // Asks all to stop, and waits until they have (at most 5 s).
  void Stop();
  // True once every agent has ended by itself (drained, refused or lonely).
  bool ended() const { return running_->load() == 0; }
  // The first agent's error.
  Status status() const;
  size_t size() const { return agents_.size(); }

 private:
  std::vector<std::unique_ptr<worker::Agent>> agents_;
  std::vector<std::thread> threads_;
  std::shared_ptr<std::atomic<int>> running_ = std::make_shared<std::atomic<int>>(0);
  mutable std::mutex mutex_;
  Status status_;
};

}  // namespace lepton::cli
