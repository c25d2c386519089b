// Requests that wait: for a first replica, for a slow one, for nobody.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "tests/scheduler/gateway/gateway_fixture.h"

namespace lepton::gateway {
namespace {

using http::Client;
using http::Response;
using std::chrono::milliseconds;
using std::chrono::seconds;

using WaitingTest = GatewayTest;

TEST_F(WaitingTest, WaitsForTheFirstReplicaOfADeployment) {
  FakeReplica one("r1");
  gateway_->SetRoutes({Routes({})});
  std::thread announce([&] {
    std::this_thread::sleep_for(milliseconds(150));
    gateway_->SetRoutes({Routes({one.Address()})});
  });
  EXPECT_EQ(Infer().status, 200);
  announce.join();
}

TEST_F(WaitingTest, ADeploymentRemovedWhileRequestsWaitAnswersThem) {
  gateway_->SetRoutes({Routes({})});
  std::thread remove([&] {
    std::this_thread::sleep_for(milliseconds(100));
    gateway_->SetRoutes({});
  });
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(Infer().status, 404);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, seconds(1));
  remove.join();
}

TEST_F(WaitingTest, TimesOutAsTheDeploymentSays) {
  FakeReplica one("r1");
  one.hold = true;
  DeploymentRoutes routes = Routes({one.Address()});
  routes.timeout = milliseconds(150);
  gateway_->SetRoutes({routes});
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(Infer().status, 504);
  EXPECT_LT(std::chrono::steady_clock::now() - begin, seconds(2));
  EXPECT_TRUE(Wait([&] { return one.cancelled == 1; })) << "the replica must learn of it";
}

TEST_F(WaitingTest, AClientThatLeavesCancelsAtTheReplica) {
  FakeReplica one("r1");
  one.hold = true;
  gateway_->SetRoutes({Routes({one.Address()})});
  {
    Client client = NewClient();
    EXPECT_EQ(Post(client, "/v2/models/live/infer", "x", milliseconds(100)).status().code(),
              StatusCode::kDeadlineExceeded);
  }
  EXPECT_TRUE(Wait([&] { return one.cancelled == 1; }));
  EXPECT_TRUE(Wait([&] { return gateway_->StatsOf("live")->in_flight == 0; }));
  EXPECT_EQ(gateway_->StatsOf("live")->errors, 0u);
}

class ImpatientGatewayTest : public GatewayTest {
 protected:
  ImpatientGatewayTest() : GatewayTest({.wait_for_replica = milliseconds(150)}) {}
};

TEST_F(ImpatientGatewayTest, NoReplicaIsA503AfterTheWait) {
  gateway_->SetRoutes({Routes({})});
  const auto begin = std::chrono::steady_clock::now();
  const Response v2 = Infer();
  EXPECT_EQ(v2.status, 503);
  EXPECT_TRUE(nlohmann::json::parse(v2.body).contains("error"));
  EXPECT_GE(std::chrono::steady_clock::now() - begin, milliseconds(140));
  const Response v1 = Infer("x", "/v1/deployments/live:predict");
  EXPECT_EQ(v1.status, 503);
  EXPECT_EQ(nlohmann::json::parse(v1.body)["code"], "UNAVAILABLE");
  EXPECT_EQ(gateway_->StatsOf("live")->errors, 2u);
}

TEST_F(ImpatientGatewayTest, ShutsDownWithRequestsInFlight) {
  FakeReplica one("r1");
  one.hold = true;
  gateway_->SetRoutes({Routes({one.Address()})});
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([this] {
      Client client = NewClient();
      (void)Post(client, "/v2/models/live/infer", "x", seconds(5));
    });
  }
  ASSERT_TRUE(Wait([&] { return one.arrived == 4; }));
  server_.reset();
  gateway_.reset();
  for (auto& caller : callers) caller.join();
}

}  // namespace
}  // namespace lepton::gateway
