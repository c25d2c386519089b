// The link: restarts, silence, refusals.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <mutex>
#include <thread>

#include "tests/worker/agent/running_agent.h"

namespace lepton::worker {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

TEST(AgentLinkTest, ACoordinatorsRestartLeavesTasksUntouchedAndLosesNoReport) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Start(Task("steps", "steps"));
  coordinator.Start(Task("ends", "sleep"));
  const int64_t pid = coordinator.AwaitStarted("steps");
  const int64_t ending = coordinator.AwaitStarted("ends");
  coordinator.AwaitReport("steps", [](const auto& r) { return r.progress().step() > 20; });
  // From here on reports are taken but not made durable.
  coordinator.Change([](auto& behaviour) { behaviour.ack_reports = false; });
  coordinator.AwaitReport("steps", [](const auto& r) { return r.progress().step() > 60; });
  coordinator.Down();
  kill(static_cast<pid_t>(ending), SIGKILL);  // ends while nobody listens
  std::this_thread::sleep_for(milliseconds(300));
  EXPECT_TRUE(Alive(pid));
  coordinator.Change([](auto& behaviour) { behaviour.ack_reports = true; });
  coordinator.Up();
  ASSERT_TRUE(coordinator.AwaitWelcomed(2));

  // The fake checks that repeated reports are equal and that there is no gap.
  EXPECT_EQ(coordinator.AwaitFinished("ends").signal(), SIGKILL);
  const size_t before = coordinator.Reports("steps").size();
  coordinator.AwaitReport("steps", [&](const auto& r) { return r.seq() > before + 20; });
  std::vector<std::string> told;
  const wire::Hello hello = coordinator.Hellos().back();
  for (const auto& running : hello.running()) {
    told.push_back(running.task_id());
    EXPECT_GT(running.last_seq(), 0u);
  }
  EXPECT_THAT(told, testing::UnorderedElementsAre("steps", "ends"));
  EXPECT_TRUE(Alive(pid));
  coordinator.Stop("steps", 5000);
  EXPECT_EQ(coordinator.AwaitFinished("steps").code(), "CANCELLED");
  for (const auto& report : coordinator.Reports("steps")) {
    if (report.has_started()) {
      EXPECT_EQ(report.started().pid(), pid);
    }
  }
}

TEST(AgentLinkTest, SilenceLeadsToANewHello) {
  FakeCoordinator coordinator({.heartbeat_ms = 20, .lease_ms = 400});
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Change([](auto& behaviour) { behaviour.answer_heartbeats = false; });
  ASSERT_TRUE(coordinator.AwaitWelcomed(3));
}

// A job that Slurm suspends: whoever did not run heard nobody, and says so of nobody.
TEST(AgentLinkTest, AWorkerThatWasFrozenBlamesNobodyForTheSilence) {
  FakeCoordinator coordinator({.lease_ms = 1'600});
  AgentProcess agent(coordinator, {"--silence-ms", "1000"});
  ASSERT_TRUE(coordinator.AwaitHeartbeats(1));
  coordinator.Change([](auto& behaviour) { behaviour.answer_heartbeats = false; });
  std::this_thread::sleep_for(milliseconds(150));  // until it has read what was on its way
  kill(agent.pid(), SIGSTOP);
  std::this_thread::sleep_for(milliseconds(2'000));
  coordinator.Change([](auto& behaviour) { behaviour.answer_heartbeats = true; });
  kill(agent.pid(), SIGCONT);
  ASSERT_TRUE(coordinator.AwaitHeartbeats(5));
  EXPECT_FALSE(agent.Ended());
  EXPECT_EQ(coordinator.Hellos().size(), 1u);
}

TEST(AgentLinkTest, TasksThatTheCoordinatorDoesNotKnowAreKilled) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Start(Task("t", "stubborn"));
  const int64_t pid = coordinator.AwaitStarted("t");
  coordinator.Down();
  coordinator.Change([](auto& behaviour) { behaviour.unknown_tasks = {"t"}; });
  coordinator.Up();
  ASSERT_TRUE(coordinator.AwaitWelcomed(2));
  EXPECT_TRUE(EndsSoon(pid));
}

TEST(AgentLinkTest, ARefusalEndsTheWorkerWithItsStatus) {
  FakeCoordinator coordinator({.refuse_code = "FAILED_PRECONDITION"});
  RunningAgent agent(coordinator);
  const Status status = agent.Join();
  EXPECT_EQ(status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("go away"));
}

TEST(AgentLinkTest, ARefusalThatMayPassIsTriedAgain) {
  FakeCoordinator coordinator({.refuse_code = "ALREADY_EXISTS"});
  RunningAgent agent(coordinator);
  while (coordinator.Hellos().size() < 2) std::this_thread::sleep_for(milliseconds(5));
  coordinator.Change([](auto& behaviour) { behaviour.refuse_code.clear(); });
  EXPECT_TRUE(coordinator.AwaitWelcomed());
  EXPECT_TRUE(agent.Stop().ok());
}

TEST(AgentLinkTest, AWorkerFollowsACoordinatorToAnotherPortAndItsTasksGoOn) {
  FakeCoordinator coordinator({.heartbeat_ms = 20, .lease_ms = 400});
  std::mutex mutex;
  std::string address;  // what the coordinator leaves for workers to find; nothing at first
  RunningAgent agent(coordinator, [&](AgentOptions& options) {
    options.find_coordinator = [&] {
      const std::lock_guard lock(mutex);
      return address;
    };
  });
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Start(Task("t", "sleep"));
  const int64_t pid = coordinator.AwaitStarted("t");
  coordinator.Down();
  coordinator.UpElsewhere();
  {
    const std::lock_guard lock(mutex);
    address = coordinator.endpoint();
  }
  ASSERT_TRUE(coordinator.AwaitWelcomed(2));
  EXPECT_TRUE(Alive(pid));
}

TEST(AgentLinkTest, AStrangersKeyEndsTheWorker) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator,
                     [](AgentOptions& options) { options.key.worker = wire::MakeCurveKeyPair(); });
  EXPECT_EQ(agent.Join().code(), StatusCode::kPermissionDenied);
}

TEST(AgentLinkTest, AWorkerWithoutACoordinatorGivesUpWhenToldTo) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator, [](AgentOptions& options) {
    options.max_coordinator_silence = milliseconds(700);
  });
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Start(Task("t", "sleep"));
  const int64_t pid = coordinator.AwaitStarted("t");
  coordinator.Down();
  const Status status = agent.Join();
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_FALSE(Alive(pid));
}

}  // namespace
}  // namespace lepton::worker
