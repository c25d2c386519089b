// Who serves what, how busy each replica is and which ones are left out.
//
//   healthy --failed--> ejected --probe answered 200--> healthy
//                          |  ^
//                          +--+ probe failed: next one after twice the pause, at most
//                          probe_interval
//
// Threads: one caller at a time (the gateway holds its lock).
#pragma once

#include <array>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "scheduler/gateway/gateway.h"

namespace lepton::gateway {

struct ReplicaState {
  Replica replica;
  int in_flight = 0;
  bool ejected = false;
  bool probing = false;
  bool gone = false;  // no longer in the table
  MonotonicTime probe_at{};
  Duration pause{};

  bool usable() const { return !ejected && !replica.draining && !gone; }
};
using ReplicaPtr = std::shared_ptr<ReplicaState>;

struct DeploymentState {
  explicit DeploymentState(std::string deployment) : name(std::move(deployment)) {}
  const std::string name;   // readable without the lock
  DeploymentRoutes routes;  // but its replicas are in the next field
  std::vector<ReplicaPtr> replicas;
  size_t turn = 0;
  bool gone = false;
  uint64_t requests = 0, errors = 0, retries = 0;
  int in_flight = 0;
  std::array<float, 1024> latencies{};  // seconds, a ring
  uint64_t answers = 0;

  // The usable replica with the fewest requests in flight, ties in turn; null if there is none.
  ReplicaPtr Pick();
  void AddLatency(double seconds);
  Gateway::Stats MakeStats() const;
};
using DeploymentPtr = std::shared_ptr<DeploymentState>;

class RoutingTable {
 public:
  void Set(std::vector<DeploymentRoutes> routes);
  DeploymentPtr Find(const std::string& deployment) const;
  // By deployment name, else by model name; the newest version when `version` is empty. Null if
  // none.
  DeploymentPtr Resolve(const std::string& model, std::string_view version) const;
  const std::map<std::string, DeploymentPtr>& deployments() const { return deployments_; }

 private:
  std::map<std::string, DeploymentPtr> deployments_;
};

}  // namespace lepton::gateway
