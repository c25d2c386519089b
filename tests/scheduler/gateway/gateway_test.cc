// Who gets which request, and what comes back.
#include "scheduler/gateway/gateway.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "runtime/base/metrics.h"
#include "tests/scheduler/gateway/gateway_fixture.h"

namespace lepton::gateway {
namespace {

using http::Client;
using http::Request;
using http::Response;
using std::chrono::milliseconds;
using std::chrono::seconds;

TEST_F(GatewayTest, RoutesByDeploymentModelAndVersion) {
  FakeReplica one("r1"), two("r2");
  DeploymentRoutes older = Routes({two.Address()});
  older.name = "old";
  older.version = 1;
  gateway_->SetRoutes({Routes({one.Address()}), older});
  EXPECT_EQ(Infer("x", "/v2/models/live/infer").body, "r1 /v2/models/live/infer x");
  EXPECT_EQ(Infer("x", "/v2/models/digits/infer").body, "r1 /v2/models/live/infer x")
      << "the newest version";
  EXPECT_EQ(Infer("x", "/v2/models/digits/versions/1/infer").body, "r2 /v2/models/old/infer x");
  EXPECT_EQ(Infer("x", "/v1/deployments/old:predict").body, "r2 /v1/deployments/old:predict x");
  for (const char* missing : {"/v2/models/none/infer", "/v2/models/digits/versions/3/infer",
                              "/v2/models/live/versions/1/infer"}) {
    const Response response = Infer("x", missing);
    EXPECT_EQ(response.status, 404) << missing;
    EXPECT_TRUE(nlohmann::json::parse(response.body).contains("error")) << response.body;
  }
  const Response unknown = Infer("x", "/v1/deployments/none:predict");
  EXPECT_EQ(unknown.status, 404);
  EXPECT_EQ(nlohmann::json::parse(unknown.body)["code"], "NOT_FOUND");
}

TEST_F(GatewayTest, ReadySaysWhetherAReplicaIs) {
  FakeReplica one("r1");
  gateway_->SetRoutes({Routes({})});
  Client client = NewClient();
  Request request;
  request.method = "GET";
  request.target = "/v2/models/live/ready";
  EXPECT_EQ(client.Call(request, Deadline::In(seconds(5))).value().status, 503);
  gateway_->SetRoutes({Routes({one.Address()})});
  EXPECT_EQ(client.Call(request, Deadline::In(seconds(5))).value().status, 200);
}

TEST_F(GatewayTest, SharesSequentialRequestsEvenly) {
  FakeReplica one("r1"), two("r2"), three("r3");
  gateway_->SetRoutes({Routes({one.Address(), two.Address(), three.Address()})});
  Client client = NewClient();
  for (int i = 0; i < 30; ++i) {
    ASSERT_EQ(Post(client, "/v2/models/live/infer", "x").value().status, 200);
  }
  EXPECT_EQ(one.served, 10);
  EXPECT_EQ(two.served, 10);
  EXPECT_EQ(three.served, 10);
}

TEST_F(GatewayTest, PrefersTheReplicaWithTheLeastInFlight) {
  FakeReplica slow("slow"), quick("quick");
  slow.hold = true;
  gateway_->SetRoutes({Routes({slow.Address(), quick.Address()})});
  std::thread stuck([this] {
    Client client = NewClient();
    (void)Post(client, "/v2/models/live/infer", "x", milliseconds(1500));
  });
  // One request at most is held by the slow one; all others must go round it.
  Client client = NewClient();
  ASSERT_TRUE(Wait([&] { return slow.arrived + quick.arrived > 0; }));
  for (int i = 0; i < 20; ++i) {
    if (slow.arrived == 0) {
      auto ignored = Post(client, "/v2/models/live/infer", "x", milliseconds(200));
      (void)ignored;
      continue;
    }
    ASSERT_EQ(Post(client, "/v2/models/live/infer", "x").value().status, 200);
  }
  EXPECT_EQ(slow.arrived, 1);
  stuck.join();
}

TEST_F(GatewayTest, PassesAnswersAndErrorsOnUnchanged) {
  FakeReplica one("r1");
  gateway_->SetRoutes({Routes({one.Address()})});
  const Response response = Infer("bad");
  EXPECT_EQ(response.status, 400);
  EXPECT_EQ(response.body, R"({"error":"inputs: must be an array"})");
  EXPECT_EQ(response.headers.find("Retry-After")->second, "7");
  EXPECT_EQ(response.headers.find("Content-Type")->second, "application/json");
  EXPECT_EQ(one.served, 1) << "an error of the client's is not retried";
  EXPECT_EQ(gateway_->StatsOf("live")->errors, 0u);
}

TEST_F(GatewayTest, ADrainingReplicaGetsNothingNew) {
  FakeReplica one("r1"), two("r2");
  Replica draining = one.Address();
  draining.draining = true;
  gateway_->SetRoutes({Routes({draining, two.Address()})});
  for (int i = 0; i < 6; ++i) EXPECT_EQ(Infer().status, 200);
  EXPECT_EQ(one.arrived, 0);
  EXPECT_EQ(gateway_->StatsOf("live")->ready_replicas, 1u);
}

TEST_F(GatewayTest, AReplicaThatIsNotReadyIsPassedOver) {
  FakeReplica one("r1"), two("r2");
  one.ready = false;
  gateway_->SetRoutes({Routes({one.Address(), two.Address()})});
  for (int i = 0; i < 6; ++i) EXPECT_EQ(Infer().status, 200);
  EXPECT_EQ(two.served, 6);
  one.ready = true;
  ASSERT_TRUE(Wait([&] { return gateway_->StatsOf("live")->ready_replicas == 2; }));
}

TEST_F(GatewayTest, AStrangerOnAReplicasPortIsPassedOver) {
  FakeReplica stranger("stranger"), two("r2");
  Replica taken = stranger.Address();
  taken.token = "of the process that had this port before";
  gateway_->SetRoutes({Routes({taken, two.Address()})});
  for (int i = 0; i < 4; ++i) EXPECT_EQ(Infer().status, 200);
  EXPECT_EQ(stranger.arrived, 0);
}

TEST_F(GatewayTest, CountsAndMeasures) {
  FakeReplica one("r1");
  one.delay_ms = 20;
  gateway_->SetRoutes({Routes({one.Address()})});
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Infer().status, 200);
  const Gateway::Stats stats = *gateway_->StatsOf("live");
  EXPECT_EQ(stats.requests, 10u);
  EXPECT_EQ(stats.in_flight, 0);
  EXPECT_GE(stats.p50_seconds, 0.02);
  EXPECT_GE(stats.p99_seconds, stats.p50_seconds);
  EXPECT_LT(stats.p99_seconds, 5);
  EXPECT_FALSE(gateway_->StatsOf("none").has_value());
  EXPECT_NE(metrics::Expose().find("lepton_gateway_request_seconds_count{deployment=\"live\"}"),
            std::string::npos);
}

}  // namespace
}  // namespace lepton::gateway
