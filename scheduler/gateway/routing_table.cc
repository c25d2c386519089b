#include "scheduler/gateway/routing_table.h"

#include <algorithm>

namespace lepton::gateway {
namespace {

bool SameProcess(const Replica& a, const Replica& b) {
  return a.id == b.id && a.host == b.host && a.port == b.port && a.token == b.token;
}

double Quantile(std::vector<float>& values, double q) {
  if (values.empty()) return 0;
  const auto at =
      values.begin() + static_cast<ptrdiff_t>(q * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

}  // namespace

ReplicaPtr DeploymentState::Pick() {
  ReplicaPtr best;
  size_t best_at = 0;
  for (size_t i = 0; i < replicas.size(); ++i) {
    const size_t at = (turn + i) % replicas.size();
    const ReplicaPtr& candidate = replicas[at];
    if (!candidate->usable()) continue;
    if (best == nullptr || candidate->in_flight < best->in_flight) {
      best = candidate;
      best_at = at;
    }
  }
  if (best != nullptr) turn = best_at + 1;
  return best;
}

void DeploymentState::AddLatency(double seconds) {
  latencies[answers++ % latencies.size()] = static_cast<float>(seconds);
}

Gateway::Stats DeploymentState::MakeStats() const {
  Gateway::Stats stats;
  stats.requests = requests;
  stats.errors = errors;
  stats.retries = retries;
  stats.in_flight = in_flight;
  for (const ReplicaPtr& replica : replicas) {
    stats.ready_replicas += replica->usable() ? 1 : 0;
    stats.ejected_replicas += replica->ejected ? 1 : 0;
  }
  std::vector<float> newest(
      latencies.begin(),
      latencies.begin() + static_cast<ptrdiff_t>(std::min<uint64_t>(answers, latencies.size())));
  stats.p50_seconds = Quantile(newest, 0.5);
  stats.p99_seconds = Quantile(newest, 0.99);
  return stats;
}

void RoutingTable::Set(std::vector<DeploymentRoutes> routes) {
  std::map<std::string, DeploymentPtr> next;
  for (DeploymentRoutes& entry : routes) {
    DeploymentPtr state = Find(entry.name);
    if (state == nullptr) state = std::make_shared<DeploymentState>(entry.name);
    std::vector<ReplicaPtr> old = std::move(state->replicas);
    state->replicas.clear();
    for (Replica& replica : entry.replicas) {
      const auto known = std::find_if(old.begin(), old.end(), [&replica](const ReplicaPtr& other) {
        return other != nullptr && SameProcess(other->replica, replica);
      });
      ReplicaPtr kept = known == old.end() ? std::make_shared<ReplicaState>() : std::move(*known);
      kept->replica = std::move(replica);
      state->replicas.push_back(std::move(kept));
    }
    for (const ReplicaPtr& left : old) {
      if (left != nullptr) left->gone = true;
    }
    entry.replicas.clear();
    state->routes = std::move(entry);
    next[state->name] = std::move(state);
  }
  for (const auto& [name, state] : deployments_) {
    if (next.contains(name)) continue;
    state->gone = true;
    for (const ReplicaPtr& replica : state->replicas) replica->gone = true;
  }
  deployments_ = std::move(next);
}

DeploymentPtr RoutingTable::Find(const std::string& deployment) const {
  const auto found = deployments_.find(deployment);
  return found == deployments_.end() ? nullptr : found->second;
}

DeploymentPtr RoutingTable::Resolve(const std::string& model, std::string_view version) const {
  const auto fits = [version](const DeploymentState& state) {
    return version.empty() || version == std::to_string(state.routes.version);
  };
  if (DeploymentPtr named = Find(model); named != nullptr && fits(*named)) return named;
  DeploymentPtr best;
  for (const auto& [name, state] : deployments_) {
    if (state->routes.model != model || !fits(*state)) continue;
    if (best == nullptr || state->routes.version > best->routes.version) best = state;
  }
  return best;
}

}  // namespace lepton::gateway
