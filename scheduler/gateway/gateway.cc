#include "scheduler/gateway/gateway.h"

#include <glog/logging.h>

#include <algorithm>
#include <condition_variable>
#include <list>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "runtime/base/metrics.h"
#include "scheduler/gateway/routing_table.h"

namespace lepton::gateway {
namespace {

using http::Request;
using http::ResponderPtr;
using http::Response;
using std::chrono::milliseconds;

constexpr Duration kFirstProbe = milliseconds(100);
constexpr Duration kProbeTimeout = milliseconds(1000);

// A client's request on its way. Fields below the line under the gateway's lock.
struct Pending {
  DeploymentPtr deployment;
  bool v2 = false;  // the shape of errors
  Request request;  // as replicas get it, but for the token
  ResponderPtr responder;
  MonotonicTime start, deadline;
  // ----
  std::optional<MonotonicTime> wait_until;  // set while no replica is ready
  int broken = 0;                           // replicas that died on it
  bool cancelled = false, finished = false;
  http::AsyncClient::Cancel cancel_call;
};
using PendingPtr = std::shared_ptr<Pending>;

Response ErrorResponse(bool v2, const Status& status) {
  if (!v2) return http::Problem(status);
  const nlohmann::json body = {{"error", status.message()}};
  return Response::Json(http::HttpStatus(status.code()),
                        body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

// What a replica may see of the client's headers, and the client of the replica's.
http::Headers PassedOn(const http::Headers& headers) {
  static const std::map<std::string, int, http::CaseLess> kPassed = {
      {"Content-Type", 0}, {"Accept", 0},       {"Inference-Header-Content-Length", 0},
      {"Retry-After", 0},  {"X-Request-Id", 0}, {"Content-Encoding", 0}};
  http::Headers passed;
  for (const auto& [name, value] : headers) {
    if (kPassed.contains(name)) passed.emplace(name, value);
  }
  return passed;
}

class GatewayImpl final : public Gateway {
 public:
  explicit GatewayImpl(const GatewayOptions& options)
      : options_(options), client_(http::AsyncClient::Make(options.io_threads)) {
    maintainer_ = std::thread([this] { Maintain(); });
  }

  ~GatewayImpl() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
      wake_.notify_all();
    }
    maintainer_.join();
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return dispatching_ == 0; });
    }
    client_.reset();  // ends every call; its callbacks use the members above
    for (const PendingPtr& pending : waiting_) {
      Answer(pending, ErrorResponse(pending->v2, Unavailable("the gateway is stopping")));
    }
  }

  void SetRoutes(std::vector<DeploymentRoutes> routes) override {
    std::lock_guard lock(mutex_);
    table_.Set(std::move(routes));
    wake_.notify_all();  // the maintainer looks after those who wait
  }

  std::optional<Stats> StatsOf(const std::string& deployment) const override {
    std::lock_guard lock(mutex_);
    const DeploymentPtr found = table_.Find(deployment);
    return found == nullptr ? std::nullopt : std::optional(found->MakeStats());
  }

  std::vector<http::Route> Routes(const std::string& scope) override {
    const auto forward = [this](std::string suffix) {
      return [this, suffix = std::move(suffix)](Request request, ResponderPtr responder) {
        HandleModel(std::move(request), std::move(responder), suffix);
      };
    };
    const auto ready = [this](const Request& request, const ResponderPtr& responder) {
      HandleReady(request, responder);
    };
    const std::string model = "/v2/models/{model}", version = "/versions/{version}";
    return {
        {"POST", "/v1/deployments/{name}:predict", scope, "Predict from rows of named columns",
         "inference",
         [this](Request request, ResponderPtr responder) {
           HandlePredict(std::move(request), std::move(responder));
         },
         "PredictRequest", "PredictResponse"},
        {"GET", model, scope, "Model metadata", "inference", forward(""), "", "ModelMetadata"},
        {"GET", model + version, scope, "Model metadata", "inference", forward(""), "",
         "ModelMetadata"},
        {"GET", model + "/ready", scope, "Whether a replica is ready", "inference", ready, "", ""},
        {"GET", model + version + "/ready", scope, "Whether a replica is ready", "inference", ready,
         "", ""},
        {"POST", model + "/infer", scope, "Infer from tensors", "inference", forward("/infer"),
         "InferRequest", "InferResponse"},
        {"POST", model + version + "/infer", scope, "Infer from tensors", "inference",
         forward("/infer"), "InferRequest", "InferResponse"},
    };
  }

 private:
  // ---- entry --------------------------------------------------------------------------------

  void HandlePredict(Request request, ResponderPtr responder) {
    const std::string name = request.params["name"];
    DeploymentPtr deployment;
    {
      std::lock_guard lock(mutex_);
      deployment = table_.Find(name);
    }
    if (deployment == nullptr) {
      return responder->Send(
          http::Problem(NotFound("deployment " + name + ": no such deployment")));
    }
    request.target = "/v1/deployments/" + http::PercentEncode(name) + ":predict";
    Begin(std::move(deployment), false, std::move(request), std::move(responder));
  }

  DeploymentPtr ResolveOrAnswer(const Request& request, const ResponderPtr& responder) {
    const std::string& model = request.params.at("model");
    const auto version = request.params.find("version");
    const std::string wanted = version == request.params.end() ? "" : version->second;
    std::lock_guard lock(mutex_);
    DeploymentPtr deployment = table_.Resolve(model, wanted);
    if (deployment == nullptr) {
      responder->Send(ErrorResponse(
          true, NotFound("model " + model + (wanted.empty() ? "" : " version " + wanted) +
                         " is not deployed")));
    }
    return deployment;
  }

  void HandleModel(Request request, ResponderPtr responder, const std::string& suffix) {
    DeploymentPtr deployment = ResolveOrAnswer(request, responder);
    if (deployment == nullptr) return;
    request.target = "/v2/models/" + http::PercentEncode(deployment->name) + suffix;
    Begin(std::move(deployment), true, std::move(request), std::move(responder));
  }

  void HandleReady(const Request& request, const ResponderPtr& responder) {
    const DeploymentPtr deployment = ResolveOrAnswer(request, responder);
    if (deployment == nullptr) return;
    size_t ready = 0;
    {
      std::lock_guard lock(mutex_);
      ready = deployment->MakeStats().ready_replicas;
    }
    const nlohmann::json body = {{"name", request.params.at("model")}, {"ready", ready > 0}};
    responder->Send(Response::Json(ready > 0 ? 200 : 503, body.dump()));
  }

  void Begin(DeploymentPtr deployment, bool v2, Request request, ResponderPtr responder) {
    auto pending = std::make_shared<Pending>();
    pending->v2 = v2;
    pending->request.method = request.method;
    pending->request.target = std::move(request.target);
    pending->request.headers = PassedOn(request.headers);
    pending->request.body = std::move(request.body);
    pending->responder = std::move(responder);
    pending->start = RealClock().Now();
    {
      std::lock_guard lock(mutex_);
      pending->deadline = pending->start + deployment->routes.timeout;
      ++deployment->requests;
      ++deployment->in_flight;
    }
    pending->deployment = std::move(deployment);
    pending->responder->OnCancel([this, weak = std::weak_ptr(pending)] {
      if (const PendingPtr alive = weak.lock()) CancelPending(alive);
    });
    Dispatch(pending);
  }

  void CancelPending(const PendingPtr& pending) {
    http::AsyncClient::Cancel cancel;
    {
      std::lock_guard lock(mutex_);
      pending->cancelled = true;
      cancel.swap(pending->cancel_call);
      wake_.notify_all();
    }
    if (cancel) cancel();
  }

  // ---- to a replica and back ----------------------------------------------------------------

  void Dispatch(const PendingPtr& pending) {
    std::unique_lock lock(mutex_);
    if (pending->cancelled || stopping_) {
      lock.unlock();
      return Fail(pending, Unavailable("the gateway is stopping"));
    }
    const ReplicaPtr replica = pending->deployment->Pick();
    if (replica == nullptr) {
      if (!pending->wait_until) {
        pending->wait_until =
            std::min(RealClock().Now() + options_.wait_for_replica, pending->deadline);
      }
      waiting_.push_back(pending);
      wake_.notify_all();
      return;
    }
    ++replica->in_flight;
    ++dispatching_;
    Request request = pending->request;
    request.headers.emplace("Authorization", "Bearer " + replica->replica.token);
    const std::string host = replica->replica.host;
    const uint16_t port = replica->replica.port;
    lock.unlock();
    const Duration left = std::max(pending->deadline - RealClock().Now(), Duration(1));
    auto cancel = client_->Call(host, port, std::move(request), left,
                                [this, pending, replica](Result<Response> result) {
                                  OnAnswer(pending, replica, std::move(result));
                                });
    lock.lock();
    --dispatching_;
    if (stopping_) wake_.notify_all();
    if (pending->finished) return;
    if (!pending->cancelled) {
      pending->cancel_call = std::move(cancel);
      return;
    }
    lock.unlock();
    cancel();
  }

  void OnAnswer(const PendingPtr& pending, const ReplicaPtr& replica, Result<Response> result) {
    const StatusCode code = result.status().code();
    // 401: another process has the port now. 503: not ready, or draining.
    const bool refused = result.ok() && (result->status == 401 || result->status == 503);
    {
      std::lock_guard lock(mutex_);
      --replica->in_flight;
      pending->cancel_call = nullptr;
      if (refused || code == StatusCode::kUnavailable || code == StatusCode::kAborted ||
          code == StatusCode::kDeadlineExceeded) {
        Eject(*replica,
              refused ? "answered " + std::to_string(result->status) : result.status().ToString());
      }
      pending->broken += code == StatusCode::kAborted ? 1 : 0;
    }
    if (pending->deadline <= RealClock().Now() || code == StatusCode::kDeadlineExceeded) {
      return Fail(pending, DeadlineExceeded("no replica answered in time"));
    }
    if (refused || code == StatusCode::kUnavailable ||
        // Only once, lest a request that kills its replica kills them all.
        (code == StatusCode::kAborted && pending->broken < 2)) {
      {
        std::lock_guard lock(mutex_);
        ++pending->deployment->retries;
      }
      metrics::Counter("lepton_gateway_retries_total", "Requests sent to another replica",
                       {{"deployment", pending->deployment->name}})
          .Increment();
      return Dispatch(pending);
    }
    if (code == StatusCode::kCancelled) {
      return Fail(pending, Unavailable("the gateway is stopping"));
    }
    if (!result.ok()) return Fail(pending, Unavailable("two replicas broke while answering"));
    Response response;
    response.status = result->status;
    response.headers = PassedOn(result->headers);
    response.body = std::move(result->body);
    Answer(pending, std::move(response));
  }

  void Fail(const PendingPtr& pending, const Status& status) {
    Answer(pending, ErrorResponse(pending->v2, status));
  }

  void Answer(const PendingPtr& pending, Response response) {
    const double seconds =
        std::chrono::duration<double>(RealClock().Now() - pending->start).count();
    const bool error = response.status >= 500;
    std::string code = std::to_string(response.status);
    const std::string& name = pending->deployment->name;
    {
      std::lock_guard lock(mutex_);
      if (std::exchange(pending->finished, true)) return;
      DeploymentState& deployment = *pending->deployment;
      --deployment.in_flight;
      if (pending->cancelled) {
        code = "499";
      } else {
        deployment.errors += error ? 1 : 0;
        deployment.AddLatency(seconds);
      }
    }
    metrics::Counter("lepton_gateway_requests_total", "Inference requests by answer",
                     {{"deployment", name}, {"code", code}})
        .Increment();
    metrics::Histogram("lepton_gateway_request_seconds", "From a request's arrival to its answer",
                       {{"deployment", name}})
        .Observe(seconds);
    pending->responder->Send(std::move(response));
  }

  // ---- health -------------------------------------------------------------------------------

  // Under the lock.
  void Eject(ReplicaState& replica, const std::string& why) {
    if (replica.ejected || replica.gone) return;
    LOG(WARNING) << "gateway: replica " << replica.replica.id << " is left out: " << why;
    replica.ejected = true;
    replica.pause = kFirstProbe;
    replica.probe_at = RealClock().Now() + replica.pause;
    wake_.notify_all();
  }

  void Probe(const ReplicaPtr& replica, const Replica& address) {
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
  void Maintain() {
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
        const bool usable =
            std::any_of(deployment.replicas.begin(), deployment.replicas.end(),
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

}  // namespace

std::unique_ptr<Gateway> Gateway::Make(const GatewayOptions& options) {
  return std::make_unique<GatewayImpl>(options);
}

}  // namespace lepton::gateway
