// The gateway's own: the requests that are on their way, and the table that they are routed by.
// Private to scheduler/gateway. Threads: every handler from any; callbacks on the client's threads;
// Maintain on a thread of its own. One lock, never held over a call to a replica or a client.
#pragma once

#include <condition_variable>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "scheduler/gateway/gateway.h"
#include "scheduler/gateway/routing_table.h"

namespace lepton::gateway {

// A client's request on its way. Fields below the line under the gateway's lock.
struct Pending {
  DeploymentPtr deployment;
  bool v2 = false;        // the shape of errors
  http::Request request;  // as replicas get it, but for the token
  http::ResponderPtr responder;
  MonotonicTime start, deadline;
  // ----
  std::optional<MonotonicTime> wait_until;  // set while no replica is ready
  int broken = 0;                           // replicas that died on it
  bool cancelled = false, finished = false;
  http::AsyncClient::Cancel cancel_call;
};
using PendingPtr = std::shared_ptr<Pending>;

class GatewayImpl final : public Gateway {
 public:
  explicit GatewayImpl(const GatewayOptions& options);
  ~GatewayImpl() override;
  void SetRoutes(std::vector<DeploymentRoutes> routes) override;
  std::optional<Stats> StatsOf(const std::string& deployment) const override;
  std::vector<http::Route> Routes(const std::string& scope) override;

 private:
  // ---- gateway.cc: a request comes in ----
  void HandlePredict(http::Request request, http::ResponderPtr responder);
  DeploymentPtr ResolveOrAnswer(const http::Request& request, const http::ResponderPtr& responder);
  void HandleModel(http::Request request, http::ResponderPtr responder, const std::string& suffix);
  void HandleReady(const http::Request& request, const http::ResponderPtr& responder);
  void Begin(DeploymentPtr deployment, bool v2, http::Request request,
             http::ResponderPtr responder);
  void CancelPending(const PendingPtr& pending);

  // ---- forward.cc: to a replica and back ----
  void Dispatch(const PendingPtr& pending);
  void OnAnswer(const PendingPtr& pending, const ReplicaPtr& replica,
                Result<http::Response> result);
  void Fail(const PendingPtr& pending, const Status& status);
  void Answer(const PendingPtr& pending, http::Response response);

  // ---- health.cc: replicas that failed, requests that wait ----
  void Eject(ReplicaState& replica, const std::string& why);  // under the lock
  void Probe(const ReplicaPtr& replica, const Replica& address);
  void Maintain();

  const GatewayOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  int dispatching_ = 0;  // threads inside client_->Call
  RoutingTable table_;
  std::list<PendingPtr> waiting_;
  std::unique_ptr<http::AsyncClient> client_;
  std::thread maintainer_;
};

// With the shape that errors have under /v2, or as a problem document.
http::Response ErrorResponse(bool v2, const Status& status);
// What a replica may see of the client's headers, and the client of the replica's.
http::Headers PassedOn(const http::Headers& headers);

}  // namespace lepton::gateway
