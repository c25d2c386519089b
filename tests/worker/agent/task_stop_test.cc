// Tasks that are stopped or killed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cstdlib>
#include <thread>

#include "tests/worker/agent/running_agent.h"

namespace lepton::worker {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

TEST(TaskStopTest, ExternalKillIsToldAtOnce) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Start(Task("t", "sleep"));
  const int64_t pid = coordinator.AwaitStarted("t");
  const MonotonicTime start = RealClock().Now();
  kill(static_cast<pid_t>(pid), SIGKILL);
  EXPECT_EQ(coordinator.AwaitFinished("t").signal(), SIGKILL);
  EXPECT_LT(RealClock().Now() - start, seconds(1));
  EXPECT_FALSE(Alive(pid));
}

wire::StartTask Watched(const std::string& id, const std::string& kind) {
  wire::StartTask start = Task(id, kind);
  start.set_pulse_ms(20);
  start.set_hang_ms(400);
  return start;
}

TEST(TaskStopTest, ATaskWhoseMainThreadStandsStillIsKilledThoughItsProcessAnswers) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  const MonotonicTime start = RealClock().Now();
  coordinator.Start(Watched("t", "stuck"));
  const wire::TaskFinished finished = coordinator.AwaitFinished("t");
  EXPECT_EQ(finished.signal(), SIGKILL);
  EXPECT_GT(finished.silent_since_ms(), 0);
  EXPECT_THAT(finished.message(),
              HasSubstr("hung: its training thread stands still in step 3, though its process"));
  EXPECT_GE(RealClock().Now() - start, milliseconds(400));
}

TEST(TaskStopTest, ATaskThatNeverGivesAPulseIsKilledToo) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Start(Watched("t", "sleep"));
  kill(static_cast<pid_t>(coordinator.AwaitStarted("t")), SIGSTOP);
  const wire::TaskFinished finished = coordinator.AwaitFinished("t");
  EXPECT_EQ(finished.signal(), SIGKILL);
  EXPECT_THAT(finished.message(), HasSubstr("hung: no sign of life"));
}

TEST(TaskStopTest, ATaskThatIsSlowButMovesOrThatWaitsIsLeftAlone) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Start(Watched("slow", "crawls"));
  coordinator.Start(Watched("waits", "waits"));
  EXPECT_EQ(coordinator.AwaitFinished("slow").code(), "OK");
  EXPECT_EQ(coordinator.AwaitFinished("waits").code(), "OK");
}

// What it owes its agent no longer is a sign of life.
TEST(TaskStopTest, ATaskThatHasSaidItsResultMayTakeLongToExit) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Start(Watched("t", "lingers"));
  const wire::TaskFinished finished = coordinator.AwaitFinished("t");
  EXPECT_EQ(finished.code(), "OK");
  EXPECT_EQ(finished.signal(), 0);
}

// Of a gang that ends together: MPI_Finalize waits for the slowest of them.
TEST(TaskStopTest, ATaskThatWasToldToStopMayTakeItsGraceToExit) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Start(Watched("t", "dwells"));
  coordinator.AwaitReport("t", [](const auto& report) { return report.has_log(); });
  coordinator.Stop("t", 10'000);
  const wire::TaskFinished finished = coordinator.AwaitFinished("t");
  EXPECT_EQ(finished.code(), "CANCELLED");
  EXPECT_EQ(finished.exit_status(), 1);
}

TEST(TaskStopTest, AResultStandsHoweverTheProcessExits) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator,
                     [](AgentOptions& options) { options.exit_limit = milliseconds(300); });
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  for (const char* kind : {"trips", "stays"}) {
    coordinator.Start(Task(kind, kind));
    const wire::TaskFinished finished = coordinator.AwaitFinished(kind);
    EXPECT_EQ(finished.code(), "OK") << kind;
    EXPECT_EQ(finished.signal(), 0) << kind;
    EXPECT_EQ(finished.exit_status(), 128 + SIGKILL) << kind;
    EXPECT_THAT(AllText(coordinator.LogLines(kind)), HasSubstr("killed by signal 9 (SIGKILL)"));
  }
}

TEST(TaskStopTest, AStopIsObeyedWithinItsGraceOrEnforced) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Start(Task("good", "sleep"));
  coordinator.Start(Task("bad", "stubborn"));
  const int64_t good = coordinator.AwaitStarted("good"), bad = coordinator.AwaitStarted("bad");
  coordinator.AwaitReport("good", [](const auto& report) { return report.has_log(); });
  coordinator.AwaitReport("bad", [](const auto& report) { return report.has_log(); });

  const MonotonicTime start = RealClock().Now();
  coordinator.Stop("bad", 300, "cancelled by a user");
  coordinator.Stop("good", 10'000);
  wire::TaskFinished finished = coordinator.AwaitFinished("good");
  EXPECT_EQ(finished.code(), "CANCELLED");
  EXPECT_EQ(finished.message(), "woken");
  EXPECT_EQ(finished.signal(), 0);
  finished = coordinator.AwaitFinished("bad");
  EXPECT_EQ(finished.code(), "CANCELLED");
  EXPECT_THAT(finished.message(), HasSubstr("cancelled by a user"));
  EXPECT_THAT(finished.message(), HasSubstr("killed"));
  EXPECT_EQ(finished.signal(), SIGKILL);
  EXPECT_GE(RealClock().Now() - start, milliseconds(300));
  EXPECT_FALSE(Alive(good));
  EXPECT_FALSE(Alive(bad));
}

TEST(TaskStopTest, AStopBeforeTheStartStillEndsTheTask) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Stop("t", 100);
  EXPECT_EQ(coordinator.AwaitFinished("t").code(), "CANCELLED");
  // Its StartTask comes late: it must not run.
  coordinator.Start(Task("t", "sleep"));
  coordinator.Start(Task("u", "sleep"));
  coordinator.AwaitStarted("u");
  EXPECT_EQ(coordinator.Reports("t").size(), 1u);
}

TEST(TaskStopTest, AStopEndsTheWaitForTheGang) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  wire::StartTask start = Task("t", "gang");
  start.set_size(2);
  start.set_group_token("0123456789abcdef");
  coordinator.Start(start);
  coordinator.AwaitReport("t", [](const auto& report) { return report.has_endpoint(); });
  coordinator.Stop("t", 10'000, "the other one failed");
  const wire::TaskFinished finished = coordinator.AwaitFinished("t");
  EXPECT_EQ(finished.code(), "CANCELLED");
  EXPECT_THAT(finished.message(), HasSubstr("gang was meeting"));
}

TEST(TaskStopTest, DescendantsOfATaskAreKilledWithIt) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  const MonotonicTime start = RealClock().Now();
  coordinator.Start(Task("t", "family"));
  EXPECT_EQ(coordinator.AwaitFinished("t").code(), "OK");
  EXPECT_LT(RealClock().Now() - start, seconds(5));
  const std::string text = AllText(coordinator.LogLines("t"));
  const size_t at = text.find("child ");
  ASSERT_NE(at, std::string::npos) << text;
  EXPECT_TRUE(EndsSoon(std::atoi(text.c_str() + at + 6)));
}

// A container that is paused: the agent's clock goes on, and it runs again before its task has.
TEST(TaskStopTest, ATaskThatWasFrozenWithItsAgentDoesNotHang) {
  for (const auto pause : {milliseconds(450), milliseconds(600), milliseconds(1'500)}) {
    FakeCoordinator coordinator({.lease_ms = 20'000});
    AgentProcess agent(coordinator);
    ASSERT_TRUE(coordinator.AwaitWelcomed());
    coordinator.Start(Watched("t", "sleep"));
    const auto task = static_cast<pid_t>(coordinator.AwaitStarted("t"));
    coordinator.AwaitReport("t", [](const auto& report) { return report.has_log(); });
    std::this_thread::sleep_for(milliseconds(200));
    for (const pid_t pid : {agent.pid(), task}) kill(pid, SIGSTOP);
    std::this_thread::sleep_for(pause);
    kill(agent.pid(), SIGCONT);
    std::this_thread::sleep_for(milliseconds(100));
    kill(task, SIGCONT);
    std::this_thread::sleep_for(milliseconds(100));
    coordinator.Stop("t", 2'000);
    EXPECT_EQ(coordinator.AwaitFinished("t").code(), "CANCELLED") << pause.count();
  }
}

}  // namespace
}  // namespace lepton::worker
