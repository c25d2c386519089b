#include "worker/infer/replica_server.h"

#include <charconv>
#include <nlohmann/json.hpp>

#include "runtime/base/metrics.h"
#include "worker/infer/row_protocol.h"
#include "worker/infer/tensor_protocol.h"

namespace lepton::worker {
namespace {

using http::Request;
using http::ResponderPtr;
using http::Response;

constexpr std::string_view kOpen = "";  // Route::scope of what needs no token
constexpr std::string_view kToken = "token";

bool IsV2(const std::string& path) {
  return path == "/v2" || path.starts_with("/v2/");
}

Response ErrorResponse(bool v2, const Status& status) {
  if (!v2) return http::Problem(status);
  const nlohmann::json body = {{"error", status.message()}};
  return Response::Json(http::HttpStatus(status.code()),
                        body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

void Answer(const ResponderPtr& responder, Response response) {
  metrics::Counter("lepton_inference_requests_total", "Inference requests by HTTP status",
                   {{"code", std::to_string(response.status)}})
      .Increment();
  responder->Send(std::move(response));
}

// Takes as long for a wrong token as for the right one.
bool SameSecret(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned char difference = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference = static_cast<unsigned char>(difference | (a[i] ^ b[i]));
  }
  return difference == 0;
}

Result<std::optional<size_t>> JsonBytes(const Request& request) {
  const std::string text = request.Header("Inference-Header-Content-Length");
  if (text.empty()) return std::optional<size_t>();
  size_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return InvalidArgument("Inference-Header-Content-Length: \"" + text + "\" is no number");
  }
  return std::optional<size_t>(value);
}

Response Fallback(const Request& request, int status) {
  if (!IsV2(request.path)) {
    return http::HttpProblem(status, "NOT_FOUND", request.path + ": no such resource");
  }
  const nlohmann::json body = {
      {"error", request.path + ": " + (status == 404 ? "no such resource" : "wrong method")}};
  return Response::Json(status,
                        body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

BatcherOptions ForBatcher(const ReplicaOptions& options, const LoadedModel& model) {
  return {model.outputs(), options.max_batch, options.max_queue, options.max_wait, options.timeout};
}

}  // namespace

ReplicaServer::ReplicaServer(const ReplicaOptions& options, std::unique_ptr<LoadedModel> model)
    : options_(options),
      model_(std::move(model)),
      served_{options.deployment, options.model_name, options.model_version,  &model_->manifest(),
              model_->outputs(),  model_->numbers(),  model_->encoder().get()},
      batcher_(ForBatcher(options, *model_),
               [model = model_.get()](const ModelRows& rows, std::span<float> logits) {
                 return model->Run(rows, logits);
               }),
      router_(
          MakeRoutes(),
          [this](const http::Route& route, Request& request) { return Authorise(route, request); },
          Fallback) {}

Result<std::unique_ptr<ReplicaServer>> ReplicaServer::Start(const ReplicaOptions& options,
                                                            std::unique_ptr<LoadedModel> model) {
  auto replica = std::unique_ptr<ReplicaServer>(new ReplicaServer(options, std::move(model)));
  http::ServerOptions server;
  server.address = options.bind;
  server.refuse = [&router = replica->router_](Request& head) { return router.Refuse(head); };
  LEPTON_ASSIGN_OR_RETURN(replica->server_,
                          http::Server::Start(server, replica->router_.AsHandler()));
  return replica;
}

// The server goes first: its handlers use all the rest.
ReplicaServer::~ReplicaServer() {
  server_.reset();
}

void ReplicaServer::Drain(Duration grace) {
  ready_ = false;
  server_->Stop(grace);
}

std::optional<Response> ReplicaServer::Authorise(const http::Route& route, const Request& request) {
  if (route.scope == kOpen) return std::nullopt;
  const bool right = !options_.token.empty() &&
                     SameSecret(request.Header("Authorization"), "Bearer " + options_.token);
  if (right) return std::nullopt;
  Response response =
      IsV2(request.path)
          ? Response::Json(401, R"({"error":"the replica's bearer token is needed"})")
          : http::HttpProblem(401, "PERMISSION_DENIED", "the replica's bearer token is needed");
  response.headers.emplace("WWW-Authenticate", "Bearer");
  return response;
}

Status ReplicaServer::CheckModel(const Request& request) const {
  const std::string& model = request.params.at("model");
  if (model != served_.name && model != served_.deployment) {
    return NotFound("model " + model + " is not served here, only " + served_.name);
  }
  const auto version = request.params.find("version");
  if (version != request.params.end() && version->second != served_.version) {
    return NotFound("model " + model + ": version " + version->second +
                    " is not served here, only " + served_.version);
  }
  return {};
}

std::vector<http::Route> ReplicaServer::MakeRoutes() {
  std::vector<http::Route> routes;
  const auto add = [&routes](std::string method, std::string pattern, std::string_view scope,
                             http::Handler handler) {
    routes.push_back({std::move(method), std::move(pattern), std::string(scope), "", "inference",
                      std::move(handler)});
  };
  const auto fixed = [](int status, std::string body) {
    return [=](const Request&, const ResponderPtr& responder) {
      responder->Send(Response::Json(status, body));
    };
  };
  const auto ready = [this](const Request&, const ResponderPtr& responder) {
    const bool yes = ready_;
    responder->Send(
        Response::Json(yes ? 200 : 503, yes ? R"({"ready":true})" : R"({"ready":false})"));
  };
  // Runs `then` if the request names our model.
  const auto named = [this](auto then) {
    return [this, then](const Request& request, const ResponderPtr& responder) {
      if (const Status status = CheckModel(request); !status.ok()) {
        return Answer(responder, ErrorResponse(true, status));
      }
      then(request, responder);
    };
  };
  add("GET", "/v2", kToken,
      fixed(200, R"({"name":"lepton","version":"0.1.0","extensions":["binary_tensor_data"]})"));
  add("GET", "/v2/health/live", kOpen, fixed(200, R"({"live":true})"));
  add("GET", "/v2/health/ready", kOpen, ready);
  for (const std::string& model :
       {std::string("/v2/models/{model}"), std::string("/v2/models/{model}/versions/{version}")}) {
    add("GET", model, kToken, named([this](const Request&, const ResponderPtr& responder) {
          responder->Send(Response::Json(200, ModelMetadata(served_)));
        }));
    add("GET", model + "/ready", kToken, named(ready));
    add("POST", model + "/infer", kToken,
        named([this](const Request& request, const ResponderPtr& responder) {
          Infer(request, responder);
        }));
  }
  add("POST", "/v1/deployments/{name}:predict", kToken,
      [this](const Request& request, const ResponderPtr& responder) {
        Predict(request, responder);
      });
  add("GET", "/metrics", kToken, [](const Request&, const ResponderPtr& responder) {
    responder->Send(Response::Text(200, metrics::Expose(), "text/plain; version=0.0.4"));
  });
  return routes;
}

void ReplicaServer::Infer(const Request& request, const ResponderPtr& responder) {
  const auto json_bytes = JsonBytes(request);
  if (!json_bytes.ok()) return Answer(responder, ErrorResponse(true, json_bytes.status()));
  auto parsed = ParseInferRequest(served_, request.body, *json_bytes);
  if (!parsed.ok()) return Answer(responder, ErrorResponse(true, parsed.status()));
  auto shared = std::make_shared<InferRequest>(std::move(*parsed));
  ModelRows rows = std::move(shared->rows);
  shared->rows.rows = rows.rows;
  RunRows(std::move(rows), true, responder, [this, shared](const std::vector<float>& logits) {
    return EncodeInferResponse(served_, *shared, logits);
  });
}

void ReplicaServer::Predict(const Request& request, const ResponderPtr& responder) {
  const std::string& name = request.params.at("name");
  if (name != served_.deployment) {
    return Answer(responder,
                  ErrorResponse(false, NotFound("deployment " + name + " is not served here")));
  }
  auto parsed = ParseRows(served_, request.body);
  if (!parsed.ok()) return Answer(responder, ErrorResponse(false, parsed.status()));
  const int64_t rows = parsed->rows;
  RunRows(*std::move(parsed), false, responder, [this, rows](const std::vector<float>& logits) {
    return Response::Json(200, EncodePredictions(served_, rows, logits));
  });
}

void ReplicaServer::RunRows(ModelRows rows, bool v2, const ResponderPtr& responder,
                            std::function<Response(const std::vector<float>&)> encode) {
  const uint64_t ticket = batcher_.Submit(
      std::move(rows),
      [responder, v2, encode = std::move(encode)](Result<std::vector<float>> logits) {
        Answer(responder, logits.ok() ? encode(*logits) : ErrorResponse(v2, logits.status()));
      });
  responder->OnCancel([this, ticket] { batcher_.Cancel(ticket); });
}

}  // namespace lepton::worker
