// Tells the gateway which replicas serve which deployment, whenever that changes.
// Threads: the state loop's.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "runtime/base/clock.h"
#include "scheduler/core/state.h"
#include "scheduler/gateway/gateway.h"

namespace lepton::scheduler {

class DeploymentRouteTable {
 public:
  void Update(const State& state, gateway::Gateway& gateway);

 private:
  Duration TimeoutOf(const Deployment& deployment);

  std::vector<gateway::DeploymentRoutes> current_;
  std::map<std::string, std::pair<std::string, Duration>> timeouts_;  // name -> spec, timeout
};

}  // namespace lepton::scheduler
