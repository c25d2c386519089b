#include "scheduler/gateway/gateway.h"

#include <map>
#include <nlohmann/json.hpp>

#include "runtime/base/named_thread.h"
#include "scheduler/gateway/gateway_impl.h"

namespace lepton::gateway {

using http::Request;
using http::ResponderPtr;
using http::Response;

Response ErrorResponse(bool v2, const Status& status) {
  if (!v2) return http::Problem(status);
  const nlohmann::json body = {{"error", status.message()}};
  return Response::Json(http::HttpStatus(status.code()),
                        body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

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

GatewayImpl::GatewayImpl(const GatewayOptions& options)
    : options_(options), client_(http::AsyncClient::Make(options.io_threads)) {
  maintainer_ = NamedThread("gateway", [this] { Maintain(); });
}

GatewayImpl::~GatewayImpl() {
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

void GatewayImpl::SetRoutes(std::vector<DeploymentRoutes> routes) {
  std::lock_guard lock(mutex_);
  table_.Set(std::move(routes));
  wake_.notify_all();  // the maintainer looks after those who wait
}

std::optional<Gateway::Stats> GatewayImpl::StatsOf(const std::string& deployment) const {
  std::lock_guard lock(mutex_);
  const DeploymentPtr found = table_.Find(deployment);
  return found == nullptr ? std::nullopt : std::optional(found->MakeStats());
}

std::vector<http::Route> GatewayImpl::Routes(const std::string& scope) {
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

void GatewayImpl::HandlePredict(Request request, ResponderPtr responder) {
  const std::string name = request.params["name"];
  DeploymentPtr deployment;
  {
    std::lock_guard lock(mutex_);
    deployment = table_.Find(name);
  }
  if (deployment == nullptr) {
    return responder->Send(http::Problem(NotFound("deployment " + name + ": no such deployment")));
  }
  request.target = "/v1/deployments/" + http::PercentEncode(name) + ":predict";
  Begin(std::move(deployment), false, std::move(request), std::move(responder));
}

DeploymentPtr GatewayImpl::ResolveOrAnswer(const Request& request, const ResponderPtr& responder) {
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

void GatewayImpl::HandleModel(Request request, ResponderPtr responder, const std::string& suffix) {
  DeploymentPtr deployment = ResolveOrAnswer(request, responder);
  if (deployment == nullptr) return;
  request.target = "/v2/models/" + http::PercentEncode(deployment->name) + suffix;
  Begin(std::move(deployment), true, std::move(request), std::move(responder));
}

void GatewayImpl::HandleReady(const Request& request, const ResponderPtr& responder) {
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

void GatewayImpl::Begin(DeploymentPtr deployment, bool v2, Request request,
                        ResponderPtr responder) {
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

void GatewayImpl::CancelPending(const PendingPtr& pending) {
  http::AsyncClient::Cancel cancel;
  {
    std::lock_guard lock(mutex_);
    pending->cancelled = true;
    cancel.swap(pending->cancel_call);
    wake_.notify_all();
  }
  if (cancel) cancel();
}

std::unique_ptr<Gateway> Gateway::Make(const GatewayOptions& options) {
  return std::make_unique<GatewayImpl>(options);
}

}  // namespace lepton::gateway
