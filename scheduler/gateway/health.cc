#include <glog/logging.h>

#include <algorithm>
#include <utility>

#include "scheduler/gateway/gateway_impl.h"

namespace lepton::gateway {
namespace {

constexpr Duration kFirstProbe = std::chrono::milliseconds(100);
constexpr Duration kProbeTimeout = std::chrono::milliseconds(1000);

}  // namespace

using http::Request;
using http::Response;

void GatewayImpl::Eject(ReplicaState& replica, const std::string& why) {
  if (replica.ejected || replica.gone) return;
  LOG(WARNING) << "gateway: replica " << replica.replica.id << " is left out: " << why;
  replica.ejected = true;
  replica.pause = kFirstProbe;
  replica.probe_at = RealClock().Now() + replica.pause;
  wake_.notify_all();
}

void GatewayImpl::Probe(const ReplicaPtr& replica, const Replica& address) {
  Request request;
  request.method = "GET";
  request.target = "/v2/health/ready";
  request.headers.emplace("Authorization", "Bearer " + address.token);
  client_->Call(address.host, address.port, std::move(request), kProbeTimeout,
                [this, replica](Result<Response> result) {
                  std::lock_guard lock(mutex_);
                  replica->probing = false;
                  if (result.ok() && result->status == 200) {
                    LOG(INFO) << "gateway: replica " << replica->replica.id << " is back";
                    replica->ejected = false;
                  } else {
                    replica->pause = std::min(replica->pause * 2, options_.probe_interval);
                    replica->probe_at = RealClock().Now() + replica->pause;
                  }
                  wake_.notify_all();
                });
}

// Starts due probes and looks after the requests that wait for a replica.
void GatewayImpl::Maintain() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    const MonotonicTime now = RealClock().Now();
    MonotonicTime next = now + std::chrono::hours(1);
    std::vector<std::pair<ReplicaPtr, Replica>> due;
    for (const auto& [name, deployment] : table_.deployments()) {
      for (const ReplicaPtr& replica : deployment->replicas) {
        if (!replica->ejected || replica->probing) continue;
        if (replica->probe_at <= now) {
          replica->probing = true;
          due.emplace_back(replica, replica->replica);
        } else {
          next = std::min(next, replica->probe_at);
        }
      }
    }
    std::vector<PendingPtr> ready, late, lost;
    waiting_.remove_if([&](const PendingPtr& pending) {
      const DeploymentState& deployment = *pending->deployment;
      const bool usable = std::any_of(deployment.replicas.begin(), deployment.replicas.end(),
                                      [](const ReplicaPtr& replica) { return replica->usable(); });
      if (pending->cancelled || deployment.gone) {
        lost.push_back(pending);
      } else if (usable) {
        ready.push_back(pending);
      } else if (*pending->wait_until <= now) {
        late.push_back(pending);
      } else {
        next = std::min(next, *pending->wait_until);
        return false;
      }
      return true;
    });
    if (due.empty() && ready.empty() && late.empty() && lost.empty()) {
      wake_.wait_until(lock, next);
      continue;
    }
    lock.unlock();
    for (const auto& [replica, address] : due) Probe(replica, address);
    for (const PendingPtr& pending : lost) Fail(pending, NotFound("the deployment is gone"));
    for (const PendingPtr& pending : late) Fail(pending, Unavailable("no replica is ready"));
    for (const PendingPtr& pending : ready) Dispatch(pending);
    lock.lock();
  }
}

}  // namespace lepton::gateway
