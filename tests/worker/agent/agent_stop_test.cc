// Workers that are stopped, drained or killed.
#include <gtest/gtest.h>
#include <signal.h>

#include <thread>

#include "runtime/base/hash.h"
#include "tests/worker/agent/running_agent.h"

namespace lepton::worker {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(AgentStopTest, StoppingEndsAllTasksTellsThemAndSaysGoodbye) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator,
                     [](AgentOptions& options) { options.stop_grace = milliseconds(300); });
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Start(Task("good", "sleep"));
  coordinator.Start(Task("bad", "stubborn"));
  const int64_t good = coordinator.AwaitStarted("good"), bad = coordinator.AwaitStarted("bad");
  coordinator.AwaitReport("bad", [](const auto& report) { return report.has_log(); });
  const MonotonicTime start = RealClock().Now();
  EXPECT_TRUE(agent.Stop().ok());
  EXPECT_LT(RealClock().Now() - start, seconds(2));
  EXPECT_FALSE(Alive(good));
  EXPECT_FALSE(Alive(bad));
  EXPECT_EQ(coordinator.AwaitFinished("good").code(), "CANCELLED");
  EXPECT_EQ(coordinator.AwaitFinished("bad").signal(), SIGKILL);
  EXPECT_TRUE(coordinator.AwaitGoodbye());
}

TEST(AgentStopTest, AWorkerSaysThatItLeavesAsItBeginsTo) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Start(Task("bad", "stubborn"));
  coordinator.AwaitReport("bad", [](const auto& report) { return report.has_log(); });
  ASSERT_TRUE(coordinator.AwaitHeartbeats(1));
  EXPECT_FALSE(coordinator.LastHeartbeat().leaving());
  EXPECT_TRUE(agent.Stop().ok());
  EXPECT_TRUE(coordinator.LastHeartbeat().leaving());
}

TEST(AgentStopTest, StoppingTakesLessThanFiveSecondsWhateverHappens) {
  FakeCoordinator coordinator({.ack_reports = false});
  RunningAgent agent(coordinator, [](AgentOptions& options) { options.stop_grace = seconds(60); });
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Start(Task("bad", "stubborn"));
  const int64_t pid = coordinator.AwaitStarted("bad");
  coordinator.AwaitReport("bad", [](const auto& report) { return report.has_log(); });
  const MonotonicTime start = RealClock().Now();
  EXPECT_TRUE(agent.Stop().ok());
  EXPECT_LT(RealClock().Now() - start, seconds(5));
  EXPECT_FALSE(Alive(pid));
}

// Six answers: the time of a stop is over after the fourth, and that of the drain after the first.
TEST(AgentStopTest, ResultsThatAreOnTheirWayArrive) {
  for (const bool drained : {false, true}) {
    FakeCoordinator coordinator({.lease_ms = 20'000, .put_ms = 900});
    RunningAgent agent(coordinator);
    ASSERT_TRUE(coordinator.AwaitWelcomed());
    coordinator.Start(Task("t", "echo"));
    coordinator.AwaitReport("t", [](const auto& report) { return report.has_progress(); });
    if (drained) coordinator.Drain("maintenance", 500);
    EXPECT_TRUE((drained ? agent.Join() : agent.Stop()).ok());
    EXPECT_FALSE(coordinator.AwaitFinished("t").model_manifest().empty());
    EXPECT_TRUE(coordinator.HasObject(Sha256Hex(std::string(3'000'000, 'w'))));
    EXPECT_TRUE(coordinator.AwaitGoodbye());
  }
}

TEST(AgentStopTest, ResultsThatDoNotMoveHoldNobodyUp) {
  FakeCoordinator coordinator({.answer_objects = false});
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Start(Task("t", "echo"));
  coordinator.AwaitReport("t", [](const auto& report) { return report.has_progress(); });
  const MonotonicTime start = RealClock().Now();
  EXPECT_TRUE(agent.Stop().ok());
  EXPECT_LT(RealClock().Now() - start, seconds(5));
}

TEST(AgentStopTest, ARankHasItsJobsBudgetToLeaveInAndOthersTheWorkersGrace) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator,
                     [](AgentOptions& options) { options.stop_grace = milliseconds(100); });
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  for (const char* id : {"long", "short"}) {
    wire::StartTask start = Task(id, "parts");
    start.set_elastic(true);
    if (start.task_id() == "long") start.set_leave_grace_ms(20'000);
    coordinator.Start(start);
    coordinator.AwaitReport(id, [](const auto& report) { return report.has_log(); });
  }
  EXPECT_TRUE(agent.Stop().ok());
  EXPECT_EQ(coordinator.AwaitFinished("short").signal(), SIGKILL);
  const wire::TaskFinished left = coordinator.AwaitFinished("long");
  EXPECT_EQ(left.signal(), 0);
  EXPECT_EQ(left.code(), "CANCELLED");
  EXPECT_EQ(left.message(), "left after the step");
}

TEST(AgentStopTest, StoppingWithoutACoordinatorIsQuick) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Down();
  const MonotonicTime start = RealClock().Now();
  EXPECT_TRUE(agent.Stop().ok());
  EXPECT_LT(RealClock().Now() - start, seconds(2));
}

// A coordinator that starts again is back soon.
TEST(AgentStopTest, WhatTasksLeftIsToldThoughTheLinkIsDownForAMoment) {
  FakeCoordinator coordinator({.lease_ms = 10'000});
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Start(Task("t", "sleep"));
  coordinator.AwaitReport("t", [](const auto& report) { return report.has_log(); });
  coordinator.Down();
  std::thread back([&] {
    std::this_thread::sleep_for(milliseconds(300));
    coordinator.Up();
  });
  EXPECT_TRUE(agent.Stop().ok());
  back.join();
  EXPECT_EQ(coordinator.AwaitFinished("t").code(), "CANCELLED");
  EXPECT_TRUE(coordinator.AwaitGoodbye());
}

TEST(AgentStopTest, ADrainedWorkerFinishesItsTasksAndLeaves) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Start(Task("t", "sleep"));
  coordinator.AwaitStarted("t");
  coordinator.Drain("maintenance");
  coordinator.Start(Task("late", "sleep"));
  EXPECT_EQ(coordinator.AwaitFinished("late").code(), "UNAVAILABLE");
  EXPECT_TRUE(coordinator.AwaitFinished("late").refused());
  EXPECT_TRUE(coordinator.AwaitHeartbeats(3));
  coordinator.Stop("t", 5000);
  EXPECT_TRUE(agent.Join().ok());
  EXPECT_EQ(coordinator.AwaitFinished("t").code(), "CANCELLED");
  EXPECT_TRUE(coordinator.AwaitGoodbye());
}

TEST(AgentStopTest, TasksDieWithAKilledAgent) {
  FakeCoordinator coordinator;
  AgentProcess agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Start(Task("t", "stubborn"));
  coordinator.Start(Task("u", "sleep"));
  const int64_t t = coordinator.AwaitStarted("t"), u = coordinator.AwaitStarted("u");
  EXPECT_TRUE(Alive(t) && Alive(u));
  agent.Kill();
  EXPECT_TRUE(EndsSoon(t));
  EXPECT_TRUE(EndsSoon(u));
}

}  // namespace
}  // namespace lepton::worker
