#include "tests/scheduler/gateway/gateway_fixture.h"

#include <thread>

namespace lepton::gateway {

using http::Client;
using http::Request;
using http::ResponderPtr;
using http::Response;
using std::chrono::milliseconds;
using std::chrono::seconds;

FakeReplica::FakeReplica(std::string id, uint16_t port) : id_(std::move(id)) {
  Start(port);
}

void FakeReplica::Start(uint16_t port) {
  http::ServerOptions options;
  options.port = port;
  auto server = http::Server::Start(options, [this](Request request, ResponderPtr responder) {
    Handle(std::move(request), std::move(responder));
  });
  ASSERT_TRUE(server.ok()) << server.status().ToString();
  server_ = std::move(*server);
  port_ = server_->port();
}

void FakeReplica::Kill() {
  server_.reset();
  std::lock_guard lock(mutex_);
  held_.clear();
}

void FakeReplica::Handle(const Request& request, ResponderPtr responder) {
  if (request.Header("Authorization") != "Bearer token-" + id_) {
    return responder->Send(Response::Json(401, "{}"));
  }
  if (request.path == "/v2/health/ready" || !ready) {
    return responder->Send(Response::Json(ready ? 200 : 503, "{}"));
  }
  ++arrived;
  if (hold) {
    responder->OnCancel([this] { ++cancelled; });
    std::lock_guard lock(mutex_);
    return held_.push_back(std::move(responder));
  }
  if (request.body == "bad") {
    ++served;
    Response refused = Response::Json(400, R"({"error":"inputs: must be an array"})");
    refused.headers.emplace("Retry-After", "7");
    return responder->Send(std::move(refused));
  }
  const auto answer = [this, responder, target = request.target, body = request.body] {
    ++served;
    responder->Send(Response::Text(200, id_ + " " + target + " " + body));
  };
  if (delay_ms == 0) return answer();
  std::thread([answer, delay = delay_ms.load()] {
    std::this_thread::sleep_for(milliseconds(delay));
    answer();
  }).detach();
}

GatewayTest::GatewayTest(GatewayOptions options) : gateway_(Gateway::Make(options)) {
  router_ = std::make_unique<http::Router>(gateway_->Routes("predict"));
  auto server = http::Server::Start({}, router_->AsHandler());
  EXPECT_TRUE(server.ok());
  server_ = std::move(*server);
}

Client GatewayTest::NewClient() {
  http::Url url;
  url.host = "127.0.0.1";
  url.port = server_->port();
  return Client(url, {});
}

Result<Response> GatewayTest::Post(Client& client, const std::string& target,
                                   const std::string& body, Duration timeout) {
  Request request;
  request.method = "POST";
  request.target = target;
  request.body = body;
  return client.Call(request, Deadline::In(timeout));
}

Response GatewayTest::Infer(const std::string& body, const std::string& target) {
  Client client = NewClient();
  auto response = Post(client, target, body);
  EXPECT_TRUE(response.ok()) << response.status().ToString();
  return response.ok() ? *response : Response{};
}

DeploymentRoutes GatewayTest::Routes(std::vector<Replica> replicas) {
  DeploymentRoutes routes;
  routes.name = "live";
  routes.model = "digits";
  routes.version = 2;
  routes.replicas = std::move(replicas);
  return routes;
}

bool GatewayTest::Wait(const std::function<bool()>& condition) {
  const Deadline deadline = Deadline::In(seconds(10));
  while (!condition() && !deadline.Expired()) std::this_thread::sleep_for(milliseconds(2));
  return condition();
}

}  // namespace lepton::gateway
