// Routes inference requests to the replicas of deployments: least requests in flight first, ties in
// turn; a replica that fails is left out until it is announced again or a probe finds it alive; a
// request whose replica dies before it answered is sent once more, to another one (inference has no
// side effects).
//
//   client -> Gateway::HandleXxx -> AsyncClient -> replica (bearer token of that replica)
//
// Threads: all methods from any thread; handlers return at once and answer later.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/http/client.h"
#include "runtime/http/http.h"
#include "runtime/http/router.h"

namespace lepton::gateway {

struct Replica {
  std::string id;  // of its task: the same id is the same process
  std::string host;
  uint16_t port = 0;
  std::string token;
  bool draining = false;  // no new requests

  friend bool operator==(const Replica&, const Replica&) = default;
};

struct DeploymentRoutes {
  std::string name;   // of the deployment
  std::string model;  // "digits", without a version
  int version = 0;
  Duration timeout = std::chrono::seconds(10);  // per request
  std::vector<Replica> replicas;                // ready ones; may be empty for a while
};

struct GatewayOptions {
  Duration wait_for_replica = std::chrono::seconds(2);  // then 503
  Duration probe_interval = std::chrono::seconds(1);    // of replicas that failed
  int io_threads = 2;
};

class Gateway {
 public:
  // What the API shows of a deployment: since the gateway started.
  struct Stats {
    uint64_t requests = 0, errors = 0, retries = 0;  // errors: answers of 500 and above
    int in_flight = 0;
    size_t ready_replicas = 0, ejected_replicas = 0;
    double p50_seconds = 0, p99_seconds = 0;  // of the newest 1024 answers
  };

  static std::unique_ptr<Gateway> Make(const GatewayOptions& options = {});
  virtual ~Gateway() = default;

  // Replaces the whole table. Counters and ejections of deployments and replicas that stay are
  // kept; a replica that is new, or whose address or token changed, starts afresh. Requests in
  // flight to replicas that are gone go on to their end.
  virtual void SetRoutes(std::vector<DeploymentRoutes> routes) = 0;

  // The rows to add to the API's table:
  //   POST /v1/deployments/{name}:predict
  //   GET  /v2/models/{model}[/versions/{version}][/ready]
  //   POST /v2/models/{model}[/versions/{version}]/infer
  // {model} is a deployment's name or, failing that, a model's (its newest version that is
  // deployed). Answers of replicas are passed on as they are. Errors under /v2 are {"error":
  // "..."}. `predict_scope` is each row's Route::scope. Borrows this gateway.
  virtual std::vector<http::Route> Routes(const std::string& predict_scope) = 0;

  // nullopt for an unknown deployment.
  virtual std::optional<Stats> StatsOf(const std::string& deployment) const = 0;
};

}  // namespace lepton::gateway
