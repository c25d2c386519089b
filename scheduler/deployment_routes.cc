#include "scheduler/deployment_routes.h"

#include <algorithm>
#include <cstdlib>

#include "runtime/base/json.h"
#include "runtime/spec/job_spec.h"

namespace lepton::scheduler {
namespace {

bool Same(const gateway::DeploymentRoutes& a, const gateway::DeploymentRoutes& b) {
  return a.name == b.name && a.model == b.model && a.version == b.version &&
         a.timeout == b.timeout && a.replicas == b.replicas;
}

}  // namespace

Duration DeploymentRouteTable::TimeoutOf(const Deployment& deployment) {
  auto& [text, timeout] = timeouts_[deployment.name()];
  if (text != deployment.spec_json()) {
    text = deployment.spec_json();
    const auto document = nlohmann::json::parse(text, nullptr, false);
    auto spec = spec::DeploymentSpecFromJson(document);
    timeout = spec.ok() ? spec->timeout : spec::DeploymentSpec{}.timeout;
  }
  return timeout;
}

void DeploymentRouteTable::Update(const State& state, gateway::Gateway& gateway) {
  std::vector<gateway::DeploymentRoutes> routes;
  for (const auto& [name, deployment] : state.deployments) {
    gateway::DeploymentRoutes row;
    row.name = name;
    const size_t at = deployment.model().rfind('@');
    row.model = deployment.model().substr(0, at);
    if (at != std::string::npos) row.version = std::atoi(deployment.model().c_str() + at + 1);
    row.timeout = TimeoutOf(deployment);
    for (const State::Route& route : state.Routes(name)) {
      row.replicas.push_back({.id = route.task_id,
                              .host = route.host,
                              .port = route.port,
                              .token = deployment.replica_token(),
                              .draining = false});
    }
    routes.push_back(std::move(row));
  }
  if (std::equal(routes.begin(), routes.end(), current_.begin(), current_.end(), Same)) return;
  current_ = routes;
  gateway.SetRoutes(std::move(routes));
}

}  // namespace lepton::scheduler
