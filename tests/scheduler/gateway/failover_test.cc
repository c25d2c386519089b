// Replicas that die, are replaced and come back.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/scheduler/gateway/gateway_fixture.h"

namespace lepton::gateway {
namespace {

using http::Client;
using http::Response;
using std::chrono::milliseconds;

using FailoverTest = GatewayTest;

TEST_F(FailoverTest, RetriesOnAnotherReplicaWhenOneIsNotThere) {
  FakeReplica dead("dead"), alive("alive");
  const Replica gone = dead.Address();
  dead.Kill();
  gateway_->SetRoutes({Routes({gone, alive.Address()})});
  for (int i = 0; i < 10; ++i) EXPECT_EQ(Infer().status, 200);
  EXPECT_EQ(alive.served, 10);
  EXPECT_EQ(gateway_->StatsOf("live")->retries, 1u) << "after one failure it is left out";
  EXPECT_EQ(gateway_->StatsOf("live")->ejected_replicas, 1u);
}

TEST_F(FailoverTest, FindsTheLastReplicaAliveOverKeptConnections) {
  FakeReplica one("r1"), two("r2"), three("r3"), four("r4");
  gateway_->SetRoutes({Routes({one.Address(), two.Address(), three.Address(), four.Address()})});
  for (int i = 0; i < 8; ++i) ASSERT_EQ(Infer().status, 200);
  one.Kill(), two.Kill(), three.Kill();
  for (int i = 0; i < 8; ++i) EXPECT_EQ(Infer().body, "r4 /v2/models/live/infer x");
}

TEST_F(FailoverTest, RetriesOnceWhenAReplicaDiesWithTheRequest) {
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

TEST_F(FailoverTest, ARequestThatKillsReplicasKillsTwoAtMost) {
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

TEST_F(FailoverTest, AReplicaComesBackWhenAProbeFindsIt) {
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

TEST_F(FailoverTest, NoErrorReachesClientsWhileReplicasAreKilledAndReplaced) {
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

}  // namespace
}  // namespace lepton::gateway
