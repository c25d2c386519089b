// Objects that are corrupt, missing, slow or cannot be stored.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <fstream>

#include "runtime/base/file.h"
#include "runtime/base/hash.h"
#include "tests/worker/agent/running_agent.h"

namespace lepton::worker {
namespace {

using testing::Contains;
using testing::HasSubstr;

TEST(AgentObjectsTest, CorruptOrMissingInputsFailTheTask) {
  FakeCoordinator coordinator({.corrupt_objects = true});
  const std::string bytes(2'000'000, 'b');
  coordinator.AddObject(Sha256Hex(bytes), bytes);
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  wire::StartTask start = Task("corrupt", "echo");
  start.add_inputs()->set_digest(Sha256Hex(bytes));
  coordinator.Start(start);
  EXPECT_EQ(coordinator.AwaitFinished("corrupt").code(), "DATA_LOSS");
  start = Task("missing", "echo");
  start.add_inputs()->set_digest(Sha256Hex("nowhere"));
  coordinator.Start(start);
  EXPECT_EQ(coordinator.AwaitFinished("missing").code(), "NOT_FOUND");
  // Neither had a process.
  EXPECT_EQ(coordinator.Reports("corrupt").size(), 1u);
  EXPECT_EQ(coordinator.Reports("missing").size(), 1u);
}

// They may take longer than the coordinator gives a silent task to start.
TEST(AgentObjectsTest, InputsThatComeSlowlyAreToldOf) {
  FakeCoordinator coordinator({.get_ms = 200});
  const std::string bytes(7 << 20, 'b');
  coordinator.AddObject(Sha256Hex(bytes), bytes);
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  for (const char* id : {"t", "waits for the same"}) {
    wire::StartTask start = Task(id, "echo");
    start.add_inputs()->set_digest(Sha256Hex(bytes));
    start.mutable_inputs(0)->set_bytes(bytes.size());
    coordinator.Start(start);
  }
  for (const char* id : {"t", "waits for the same"}) {
    EXPECT_EQ(coordinator.AwaitFinished(id).code(), "OK");
    const wire::TaskReport first = coordinator.Reports(id).at(0);
    ASSERT_TRUE(first.has_progress()) << id << ": " << first.DebugString();
    EXPECT_EQ(first.progress().phase(), "fetching its inputs");
    EXPECT_GT(first.progress().phase_done(), 0);
    EXPECT_LT(first.progress().phase_done(), 1);
  }
}

// The coordinator's is whole: the task may start again.
TEST(AgentObjectsTest, AnInputThatRottedHereIsFetchedAnewAtTheNextStart) {
  FakeCoordinator coordinator;
  const std::string bytes(2'000'000, 'b');
  const std::string digest = Sha256Hex(bytes);
  coordinator.AddObject(digest, bytes);
  TempFolder folder;
  RunningAgent agent(coordinator, [&](AgentOptions& options) { options.data_dir = folder.path(); });
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  const auto run = [&](const std::string& id) {
    wire::StartTask start = Task(id, "echo");
    start.add_inputs()->set_digest(digest);
    coordinator.Start(start);
    return coordinator.AwaitFinished(id);
  };
  EXPECT_EQ(run("first").code(), "OK");
  {
    std::fstream file(folder.path() / "objects" / digest.substr(0, 2) / digest,
                      std::ios::in | std::ios::out);
    file.seekp(1000);
    file.put('x');
  }
  const wire::TaskFinished second = run("second");
  EXPECT_EQ(second.code(), "INTERNAL") << "neither the spec nor the data are at fault";
  EXPECT_THAT(second.message(), HasSubstr(digest + ": its bytes do not match its digest"));
  EXPECT_EQ(run("third").code(), "OK");
}

TEST(AgentObjectsTest, AModelThatCannotBeStoredFailsTheTask) {
  FakeCoordinator coordinator({.put_error = "RESOURCE_EXHAUSTED"});
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Start(Task("t", "echo"));
  const wire::TaskFinished finished = coordinator.AwaitFinished("t");
  EXPECT_EQ(finished.code(), "RESOURCE_EXHAUSTED");
  EXPECT_TRUE(finished.model_manifest().empty());
  for (const auto& report : coordinator.Reports("t")) EXPECT_FALSE(report.has_checkpoint());
  EXPECT_THAT(AllText(coordinator.LogLines("t")), HasSubstr("checkpoint of step 1 is not stored"));
}

TEST(AgentObjectsTest, TasksWhoseResultsAreOnTheirWayAreNamed) {
  FakeCoordinator coordinator({.answer_objects = false});
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Start(Task("running", "sleep"));
  coordinator.Start(Task("t", "echo"));
  coordinator.AwaitReport("t", [](const auto& report) { return report.has_progress(); });
  bool named = false;
  for (int i = 0; i < 100 && !named; ++i) {
    ASSERT_TRUE(coordinator.AwaitHeartbeats(1));
    const auto heartbeat = coordinator.LastHeartbeat();
    const auto& storing = heartbeat.storing_task_ids();
    EXPECT_THAT(storing, testing::Not(Contains("running")));
    named = storing.size() == 1 && storing[0] == "t";
  }
  EXPECT_TRUE(named);
  coordinator.Change([](auto& behaviour) { behaviour.answer_objects = true; });
  coordinator.AwaitFinished("t");
  ASSERT_TRUE(coordinator.AwaitHeartbeats(2));
  EXPECT_EQ(coordinator.LastHeartbeat().storing_task_ids_size(), 0);
}

// Its gang is told at once, and waits for nothing that need not come.
TEST(AgentObjectsTest, ThatAProcessIsGoneIsToldBeforeWhatItLeftIsStored) {
  FakeCoordinator coordinator({.answer_objects = false});
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Start(Task("t", "echo"));
  const wire::TaskReport gone =
      coordinator.AwaitReport("t", [](const auto& report) { return report.has_gone(); });
  EXPECT_EQ(gone.gone().code(), "OK");
  for (const auto& report : coordinator.Reports("t")) EXPECT_FALSE(report.has_finished());
  coordinator.Change([](auto& behaviour) { behaviour.answer_objects = true; });
  EXPECT_FALSE(coordinator.AwaitFinished("t").model_manifest().empty());
}

TEST(AgentObjectsTest, AProcessThatLeavesNothingBehindItsEndSaysSoOnce) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Start(Task("t", "sleep"));
  kill(static_cast<pid_t>(coordinator.AwaitStarted("t")), SIGKILL);
  EXPECT_EQ(coordinator.AwaitFinished("t").signal(), SIGKILL);
  for (const auto& report : coordinator.Reports("t")) EXPECT_FALSE(report.has_gone());
}

TEST(AgentObjectsTest, HeartbeatsGoOnWhileObjectsAreAwaited) {
  FakeCoordinator coordinator({.answer_objects = false});
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  wire::StartTask start = Task("t", "echo");
  start.add_inputs()->set_digest(Sha256Hex("slow"));
  coordinator.Start(start);
  EXPECT_TRUE(coordinator.AwaitHeartbeats(10));
  EXPECT_GE(coordinator.Gets(), 1u);
  EXPECT_THAT(coordinator.LastHeartbeat().running_task_ids(), Contains("t"));
  coordinator.Stop("t", 1000);
  EXPECT_EQ(coordinator.AwaitFinished("t").code(), "CANCELLED");
}

}  // namespace
}  // namespace lepton::worker
