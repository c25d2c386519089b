// The gateway behind a real server, and stand-ins for replicas on loopback.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "runtime/http/client.h"
#include "runtime/http/router.h"
#include "runtime/http/server.h"
#include "scheduler/gateway/gateway.h"

namespace lepton::gateway {

// A stand-in for a replica that can be slow, broken, unready or dead. It answers with its id, the
// target and the body; 401 to a token that is not its own, 400 to the body "bad".
class FakeReplica {
 public:
  explicit FakeReplica(std::string id, uint16_t port = 0);
  ~FakeReplica() { Kill(); }

  // As a killed process: connections end at once.
  void Kill();
  Replica Address() const { return {id_, "127.0.0.1", port_, "token-" + id_, false}; }

  std::atomic<int> served{0}, arrived{0}, cancelled{0};
  std::atomic<int> delay_ms{0};
  std::atomic<bool> hold{false};  // never answers
  std::atomic<bool> ready{true};

 private:
  void Start(uint16_t port);
  void Handle(const http::Request& request, http::ResponderPtr responder);

  const std::string id_;
  uint16_t port_ = 0;
  std::mutex mutex_;
  std::vector<http::ResponderPtr> held_;
  std::unique_ptr<http::Server> server_;
};

class GatewayTest : public testing::Test {
 protected:
  explicit GatewayTest(GatewayOptions options = {});
  ~GatewayTest() override { server_.reset(); }

  http::Client NewClient();
  Result<http::Response> Post(http::Client& client, const std::string& target,
                              const std::string& body, Duration timeout = std::chrono::seconds(10));
  // Over a connection of its own; expects an answer.
  http::Response Infer(const std::string& body = "x",
                       const std::string& target = "/v2/models/live/infer");
  // Deployment "live" of digits@2.
  DeploymentRoutes Routes(std::vector<Replica> replicas);
  // Whether the condition held within ten seconds.
  bool Wait(const std::function<bool()>& condition);

  std::unique_ptr<Gateway> gateway_;
  std::unique_ptr<http::Router> router_;
  std::unique_ptr<http::Server> server_;
};

}  // namespace lepton::gateway
