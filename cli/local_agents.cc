#include "cli/local_agents.h"

#include "runtime/base/named_thread.h"

namespace lepton::cli {

Status LocalAgents::Add(worker::AgentOptions options) {
  LEPTON_ASSIGN_OR_RETURN(agents_.emplace_back(), worker::Agent::Create(std::move(options)));
  running_->fetch_add(1);
  threads_.push_back(NamedThread("worker", [this, agent = agents_.back().get()] {
    const Status status = agent->Run();
    if (!status.ok()) {
      const std::lock_guard lock(mutex_);
      if (status_.ok()) status_ = status.WithContext("worker " + agent->worker_id());
    }
    running_->fetch_sub(1);
  }));
  return Status::Ok();
}

void LocalAgents::Stop() {
  for (const auto& agent : agents_) {
    if (agent != nullptr) agent->Stop();
  }
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
  threads_.clear();
}

Status LocalAgents::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

}  // namespace lepton::cli
