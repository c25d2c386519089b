// A worker's connection: admission, leases, and objects both ways.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/base/hash.h"
#include "tests/scheduler/api/test_cluster.h"

namespace lepton::scheduler {
namespace {

using Kind = wire::ToWorker;

std::string StateOf(TestCluster& cluster, const std::string& worker) {
  return cluster.Get("/v1/workers/" + worker).Text("state");
}

TEST(WorkerLinkTest, AWorkerIsWelcomedAndListed) {
  TestCluster cluster;
  FakeWorker worker(cluster.coordinator(), "w1", 3);
  const auto welcome = worker.Take(Kind::kWelcome).welcome();
  EXPECT_EQ(welcome.protocol_version(), wire::kProtocolVersion);
  EXPECT_EQ(welcome.heartbeat_ms(), 100u);
  EXPECT_EQ(welcome.lease_ms(), 1500u);
  const Answer view = cluster.Get("/v1/workers/w1");
  EXPECT_EQ(view.Text("state"), "UP");
  EXPECT_EQ(view.json["slots"], 3);
  EXPECT_EQ(view.Text("host"), "testhost");
  EXPECT_TRUE(Eventually(
      [&] { return cluster.Get("/v1/workers/w1").json.value("load_average", 0.0) == 0.5; }));
  const Answer cluster_view = cluster.Get("/v1/cluster");
  EXPECT_EQ(cluster_view.json["slots"]["total"], 3);
  EXPECT_EQ(cluster.Get("/v1/workers/none").status, 404);
}

// So that `lepton run --resume` tells its own workers from those of the run before.
TEST(WorkerLinkTest, AWorkerOfTheJournalWasNotSeenByThisCoordinator) {
  TestCluster cluster;
  const auto seen = [&] { return cluster.Get("/v1/workers/w1").json.value("last_seen_ms", -1L); };
  {
    FakeWorker worker(cluster.coordinator(), "w1");
    worker.Take(Kind::kWelcome);
    EXPECT_GT(seen(), 0);
  }
  cluster.Restart();
  EXPECT_EQ(seen(), 0);
  FakeWorker back(cluster.coordinator(), "w1");
  back.Take(Kind::kWelcome);
  EXPECT_GT(seen(), 0);
}

TEST(WorkerLinkTest, BadHellosAreRefusedWithTheReason) {
  TestCluster cluster;
  struct Case {
    std::function<void(wire::Hello&)> spoil;
    std::string code;
  };
  const std::vector<Case> cases = {
      {[](wire::Hello& h) { h.set_protocol_version(99); }, "FAILED_PRECONDITION"},
      {[](wire::Hello& h) { h.set_worker_id("a b"); }, "INVALID_ARGUMENT"},
      {[](wire::Hello& h) { h.set_slots(0); }, "INVALID_ARGUMENT"},
      {[](wire::Hello& h) { h.set_incarnation(""); }, "INVALID_ARGUMENT"},
  };
  for (const Case& c : cases) {
    FakeWorker worker(cluster.coordinator(), "w1", 1, c.spoil);
    EXPECT_EQ(worker.Take(Kind::kRefused).refused().code(), c.code);
  }
  EXPECT_TRUE(cluster.Get("/v1/workers").json["items"].empty());
}

TEST(WorkerLinkTest, ASecondProcessUnderALivingIdIsRefused) {
  TestCluster cluster;
  FakeWorker first(cluster.coordinator(), "w1");
  first.Take(Kind::kWelcome);
  FakeWorker second(cluster.coordinator(), "w1");
  EXPECT_EQ(second.Take(Kind::kRefused).refused().code(), "ALREADY_EXISTS");
  EXPECT_EQ(StateOf(cluster, "w1"), "UP");
}

TEST(WorkerLinkTest, AProcessThatDiedGivesItsIdFreeAndIsLostSoon) {
  TestCluster cluster([](CoordinatorOptions& o) { o.lease = std::chrono::minutes(1); });
  auto first = std::make_unique<FakeWorker>(cluster.coordinator(), "w1");
  first->Take(Kind::kWelcome);
  first.reset();
  // Long before its lease of a minute.
  EXPECT_TRUE(Eventually([&] { return StateOf(cluster, "w1") == "LOST"; }));
  FakeWorker second(cluster.coordinator(), "w1");
  second.Take(Kind::kWelcome);
  EXPECT_EQ(StateOf(cluster, "w1"), "UP");
}

TEST(WorkerLinkTest, ASilentWorkerIsLostWhenItsLeaseRunsOut) {
  TestCluster cluster;
  FakeWorker worker(cluster.coordinator(), "w1");
  worker.Take(Kind::kWelcome);
  worker.StopHeartbeats();
  EXPECT_TRUE(Eventually([&] { return StateOf(cluster, "w1") == "LOST"; }));
  EXPECT_EQ(cluster.Get("/v1/cluster").json["slots"]["total"], 0);
}

TEST(WorkerLinkTest, AGoodbyeIsALossAtOnce) {
  TestCluster cluster([](CoordinatorOptions& o) { o.lease = std::chrono::minutes(1); });
  FakeWorker worker(cluster.coordinator(), "w1");
  worker.Take(Kind::kWelcome);
  wire::ToCoordinator message;
  message.mutable_goodbye()->set_reason("SIGTERM");
  worker.Send(message);
  EXPECT_TRUE(Eventually([&] { return StateOf(cluster, "w1") == "LOST"; }));
}

TEST(WorkerLinkTest, DrainReachesTheWorker) {
  TestCluster cluster;
  FakeWorker worker(cluster.coordinator(), "w1");
  worker.Take(Kind::kWelcome);
  const Answer answer = cluster.Call("POST", "/v1/workers/w1:drain");
  EXPECT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(answer.Text("state"), "DRAINING");
  worker.Take(Kind::kDrain);
  EXPECT_EQ(cluster.Call("POST", "/v1/workers/none:drain").status, 404);
}

TEST(WorkerLinkTest, AnObjectOfManyChunksTravelsBothWays) {
  TestCluster cluster;
  FakeWorker worker(cluster.coordinator(), "w1");
  worker.Take(Kind::kWelcome);
  // Neither a multiple of the chunks sent nor of those served.
  const std::string bytes = RandomBytes((size_t{5} << 20) / 2 + 7);
  const std::string digest = Sha256Hex(bytes);
  EXPECT_EQ(worker.Download(digest), "error NOT_FOUND");
  EXPECT_EQ(worker.Upload(digest, bytes, 700'001), "");
  EXPECT_EQ(worker.Download(digest), bytes);
  EXPECT_EQ(worker.Upload(digest, bytes), "") << "again";
  EXPECT_EQ(worker.Upload(Sha256Hex(""), ""), "") << "empty";
}

TEST(WorkerLinkTest, BytesThatAreNotTheDigestsAreNotStored) {
  TestCluster cluster;
  FakeWorker worker(cluster.coordinator(), "w1");
  worker.Take(Kind::kWelcome);
  const std::string digest = Sha256Hex("right");
  EXPECT_EQ(worker.Upload(digest, "wrong"), "DATA_LOSS");
  EXPECT_EQ(worker.Download(digest), "error NOT_FOUND");
  EXPECT_EQ(worker.Upload("../../etc", "x"), "INVALID_ARGUMENT");
  EXPECT_EQ(worker.Upload(digest, "right"), "") << "starts over after the failure";
  EXPECT_EQ(worker.Download("../../etc"), "error INVALID_ARGUMENT");
}

TEST(WorkerLinkTest, AChunkOutOfOrderIsAnsweredWithWhereToGoOn) {
  TestCluster cluster;
  FakeWorker worker(cluster.coordinator(), "w1");
  worker.Take(Kind::kWelcome);
  wire::ToCoordinator message;
  auto& put = *message.mutable_object_put();
  put.set_digest(Sha256Hex("abcdef"));
  put.set_total_bytes(6);
  put.set_offset(3);
  put.set_data("def");
  worker.Send(message);
  auto ack = worker.Take(Kind::kObjectAck).object_ack();
  EXPECT_EQ(ack.offset(), 0u);
  EXPECT_EQ(ack.error_code(), "");
  EXPECT_FALSE(ack.complete());
  EXPECT_EQ(worker.Upload(put.digest(), "abcdef", 2), "");
}

}  // namespace
}  // namespace lepton::scheduler
