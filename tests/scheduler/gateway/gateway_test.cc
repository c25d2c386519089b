// The gateway between a real server and real replicas on loopback.
#include "scheduler/gateway/gateway.h"

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "runtime/base/metrics.h"
#include "runtime/http/server.h"

namespace lepton::gateway {
namespace {

using http::Client;
using http::Request;
using http::ResponderPtr;
using http::Response;
using std::chrono::milliseconds;
using std::chrono::seconds;

// A stand-in for a replica that can be slow, broken, unready or dead.
class FakeReplica {
 public:
  explicit FakeReplica(std::string id, uint16_t port = 0) : id_(std::move(id)) { Start(port); }
  ~FakeReplica() { Kill(); }

  void Start(uint16_t port) {
    http::ServerOptions options;
    options.port = port;
    auto server = http::Server::Start(options, [this](Request request, ResponderPtr responder) {
      Handle(std::move(request), std::move(responder));
    });
    ASSERT_TRUE(server.ok()) << server.status().ToString();
    server_ = std::move(*server);
    port_ = server_->port();
  }
  // As a killed process: connections end at once.
  void Kill() {
    server_.reset();
    std::lock_guard lock(mutex_);
    held_.clear();
  }
  Replica Address() const { return {id_, "127.0.0.1", port_, "token-" + id_, false}; }
  uint16_t port() const { return port_; }

  std::atomic<int> served{0}, arrived{0}, cancelled{0};
  std::atomic<int> delay_ms{0};
  std::atomic<bool> hold{false}, ready{true};

 private:
  void Handle(Request request, ResponderPtr responder) {
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

  const std::string id_;
  uint16_t port_ = 0;
  std::mutex mutex_;
  std::vector<ResponderPtr> held_;
  std::unique_ptr<http::Server> server_;
};

class GatewayTest : public testing::Test {
 protected:
  explicit GatewayTest(GatewayOptions options = {}) : gateway_(Gateway::Make(options)) {
    router_ = std::make_unique<http::Router>(gateway_->Routes("predict"));
    auto server = http::Server::Start({}, router_->AsHandler());
    EXPECT_TRUE(server.ok());
    server_ = std::move(*server);
  }
  ~GatewayTest() override { server_.reset(); }

  Client NewClient() {
    http::Url url;
    url.host = "127.0.0.1";
    url.port = server_->port();
    return Client(url, {});
  }
  Result<Response> Post(Client& client, const std::string& target, const std::string& body,
                        Duration timeout = seconds(10)) {
    Request request;
    request.method = "POST";
    request.target = target;
    request.body = body;
    return client.Call(request, Deadline::In(timeout));
  }
  Response Infer(const std::string& body = "x",
                 const std::string& target = "/v2/models/live/infer") {
    Client client = NewClient();
    auto response = Post(client, target, body);
    EXPECT_TRUE(response.ok()) << response.status().ToString();
    return response.ok() ? *response : Response{};
  }
  DeploymentRoutes Routes(std::vector<Replica> replicas) {
    DeploymentRoutes routes;
    routes.name = "live";
    routes.model = "digits";
    routes.version = 2;
    routes.replicas = std::move(replicas);
    return routes;
  }
  bool Wait(const std::function<bool()>& condition) {
    const Deadline deadline = Deadline::In(seconds(10));
    while (!condition() && !deadline.Expired()) std::this_thread::sleep_for(milliseconds(2));
    return condition();
  }

  std::unique_ptr<Gateway> gateway_;
  std::unique_ptr<http::Router> router_;
  std::unique_ptr<http::Server> server_;
};

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

TEST_F(GatewayTest, RetriesOnAnotherReplicaWhenOneIsNotThere) {
  FakeReplica dead("dead"), alive("alive");
  const Replica gone = dead.Address();
  dead.Kill();
  gateway_->SetRoutes({Routes({gone, alive.Address()})});
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Infer().status, 200);
  EXPECT_EQ(alive.served, 10);
  EXPECT_EQ(gateway_->StatsOf("live")->retries, 1u) << "after one failure it is left out";
  EXPECT_EQ(gateway_->StatsOf("live")->ejected_replicas, 1u);
}

TEST_F(GatewayTest, FindsTheLastReplicaAliveOverKeptConnections) {
  FakeReplica one("r1"), two("r2"), three("r3"), four("r4");
  gateway_->SetRoutes({Routes({one.Address(), two.Address(), three.Address(), four.Address()})});
  for (int i = 0; i < 8; ++i) ASSERT_EQ(Infer().status, 200);
  one.Kill(), two.Kill(), three.Kill();
  for (int i = 0; i < 8; ++i) EXPECT_EQ(Infer().body, "r4 /v2/models/live/infer x");
}

TEST_F(GatewayTest, RetriesOnceWhenAReplicaDiesWithTheRequest) {
  FakeReplica dying("dying"), other("other");
  dying.hold = true;
  gateway_->SetRoutes({Routes({dying.Address()})});
  Response response;
  std::thread caller([&] { response = Infer("precious"); });
  ASSERT_TRUE(Wait([&] { return dying.arrived == 1; }));
  gateway_->SetRoutes({Routes({dying.Address(), other.Address()})});
  dying.Kill();
  caller.join();
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.body, "other /v2/models/live/infer precious");
}

TEST_F(GatewayTest, ARequestThatKillsReplicasKillsTwoAtMost) {
  FakeReplica one("r1"), two("r2"), three("r3");
  const std::vector<FakeReplica*> all = {&one, &two, &three};
  gateway_->SetRoutes({Routes({one.Address(), two.Address(), three.Address()})});
  for (int i = 0; i < 6; ++i) ASSERT_EQ(Infer().status, 200);  // so that connections are kept
  for (FakeReplica* replica : all) {
    replica->arrived = 0;
    replica->hold = true;
  }
  Response response;
  std::atomic<bool> done{false};
  std::thread caller([&] {
    response = Infer("poison");
    done = true;
  });
  while (!done) {
    for (FakeReplica* replica : all) {
      if (replica->arrived > 0) replica->Kill();
    }
    std::this_thread::sleep_for(milliseconds(2));
  }
  caller.join();
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(one.arrived + two.arrived + three.arrived, 2);
}

TEST_F(GatewayTest, AReplicaComesBackWhenAProbeFindsIt) {
  auto one = std::make_unique<FakeReplica>("r1");
  const Replica address = one->Address();
  gateway_->SetRoutes({Routes({address})});
  ASSERT_EQ(Infer().status, 200);
  one.reset();
  std::thread restart([&] {
    std::this_thread::sleep_for(milliseconds(300));
    one = std::make_unique<FakeReplica>("r1", address.port);
  });
  // Waits for the replica rather than failing.
  EXPECT_EQ(Infer().status, 200);
  restart.join();
  EXPECT_EQ(gateway_->StatsOf("live")->ejected_replicas, 0u);
}

TEST_F(GatewayTest, WaitsForTheFirstReplicaOfADeployment) {
  FakeReplica one("r1");
  gateway_->SetRoutes({Routes({})});
  std::thread announce([&] {
    std::this_thread::sleep_for(milliseconds(150));
    gateway_->SetRoutes({Routes({one.Address()})});
  });
  EXPECT_EQ(Infer().status, 200);
  announce.join();
}

TEST_F(GatewayTest, ADeploymentRemovedWhileRequestsWaitAnswersThem) {
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

TEST_F(GatewayTest, TimesOutAsTheDeploymentSays) {
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

TEST_F(GatewayTest, AClientThatLeavesCancelsAtTheReplica) {
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

TEST_F(GatewayTest, NoErrorReachesClientsWhileReplicasAreKilledAndReplaced) {
  std::vector<std::unique_ptr<FakeReplica>> replicas;
  int made = 0;
  const auto add = [&] {
    replicas.push_back(std::make_unique<FakeReplica>("r" + std::to_string(++made)));
  };
  const auto announce = [&] {
    std::vector<Replica> addresses;
    for (const auto& replica : replicas) addresses.push_back(replica->Address());
    gateway_->SetRoutes({Routes(std::move(addresses))});
  };
  add(), add(), add();
  announce();
  std::atomic<bool> go_on{true};
  std::atomic<int> right{0}, wrong{0};
  std::vector<std::thread> threads;
  for (int c = 0; c < 6; ++c) {
    threads.emplace_back([&, c] {
      Client client = NewClient();
      for (int i = 0; go_on; ++i) {
        const std::string body = std::to_string(c) + "." + std::to_string(i);
        auto response = Post(client, "/v2/models/live/infer", body);
        const bool ok =
            response.ok() && response->status == 200 && response->body.ends_with(" " + body);
        ++(ok ? right : wrong);
      }
    });
  }
  for (int round = 0; round < 8; ++round) {
    const int before = right;
    ASSERT_TRUE(Wait([&] { return right > before + 100; }));
    replicas.front()->Kill();  // the table learns of it only later
    std::this_thread::sleep_for(milliseconds(20));
    replicas.erase(replicas.begin());
    add();
    announce();
  }
  go_on = false;
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(right, 800);
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
