// Tasks from their start to their end: results, failures, output, gangs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include "runtime/base/hash.h"
#include "tests/worker/agent/running_agent.h"

namespace lepton::worker {
namespace {

using testing::Contains;
using testing::HasSubstr;

TEST(AgentTasksTest, ATaskGetsItsInputsAndItsResultsArriveBeforeItsReports) {
  FakeCoordinator coordinator;
  const std::string big(2'500'000, 'i'), small = "small";
  coordinator.AddObject(Sha256Hex(big), big);
  coordinator.AddObject(Sha256Hex(small), small);
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  wire::StartTask start = Task("j1.a1.r0", "echo");
  start.set_slots(2);
  start.add_inputs()->set_digest(Sha256Hex(big));
  start.add_inputs()->set_digest(Sha256Hex(small));
  coordinator.Start(start);

  const wire::TaskFinished finished = coordinator.AwaitFinished("j1.a1.r0");
  EXPECT_EQ(finished.code(), "OK") << finished.message();
  EXPECT_EQ(finished.exit_status(), 0);
  EXPECT_EQ(finished.steps(), 1u);
  EXPECT_EQ(finished.model_manifest(), Sha256Hex("model"));
  EXPECT_TRUE(coordinator.HasObject(Sha256Hex("model")));
  EXPECT_TRUE(coordinator.HasObject(Sha256Hex("manifest")));
  EXPECT_TRUE(coordinator.HasObject(Sha256Hex(std::string(3'000'000, 'w'))));

  std::vector<std::string> order;
  for (const wire::TaskReport& report : coordinator.Reports("j1.a1.r0")) {
    EXPECT_GT(report.wall_ms(), 0);
    if (report.has_log() || report.has_gone()) continue;
    order.push_back(report.has_started()      ? "started"
                    : report.has_progress()   ? "progress"
                    : report.has_checkpoint() ? "checkpoint"
                    : report.has_ready()      ? "ready"
                                              : "finished");
    if (report.has_progress()) {
      EXPECT_EQ(report.progress().metrics().at("bytes"), double(big.size() + small.size()));
    }
    if (report.has_ready()) {
      EXPECT_EQ(report.ready().port(), 4321u);
    }
  }
  EXPECT_EQ(order,
            (std::vector<std::string>{"started", "progress", "checkpoint", "ready", "finished"}));
  const std::vector<std::string> lines = coordinator.LogLines("j1.a1.r0");
  EXPECT_THAT(lines, Contains("kind echo slots 2 omp 2"));
  EXPECT_THAT(lines, Contains("to the error stream"));
  EXPECT_THAT(lines, Contains("stdin gives 0"));
}

TEST(AgentTasksTest, EveryWayToFailHasItsCode) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator, [](AgentOptions& options) { options.slots = 8; });
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  struct Case {
    const char* kind;
    const char* code;
    const char* message;
    int signal;
    int exit_status;
  };
  const Case cases[] = {
      {"crash", "ABORTED", "killed by signal 9 (SIGKILL)", SIGKILL, 0},
      {"exit", "INTERNAL", "exited with status 7", 0, 7},
      {"throw", "INTERNAL", "thrown on purpose", 0, 1},
      {"memory", "RESOURCE_EXHAUSTED", "out of memory", 0, 1},
      {"fail", "INVALID_ARGUMENT", "label: no such column ?", 0, 1},
      {"nonsense", "INVALID_ARGUMENT", "\"nonsense\" is unknown", 0, 1},
      {"garbage", "ABORTED", "SIGKILL", SIGKILL, 0},
  };
  for (const Case& c : cases) coordinator.Start(Task(c.kind, c.kind));
  for (const Case& c : cases) {
    const wire::TaskFinished finished = coordinator.AwaitFinished(c.kind);
    EXPECT_EQ(finished.code(), c.code) << c.kind;
    EXPECT_THAT(finished.message(), HasSubstr(c.message));
    EXPECT_EQ(finished.signal(), c.signal) << c.kind;
    EXPECT_EQ(finished.exit_status(), c.exit_status) << c.kind;
  }
  // A last line without an end is not lost.
  EXPECT_THAT(AllText(coordinator.LogLines("crash")), HasSubstr("about to crash"));
  wire::StartTask bad_spec = Task("bad-spec", "echo");
  bad_spec.set_spec_json("{\"kind\": ");
  coordinator.Start(bad_spec);
  EXPECT_EQ(coordinator.AwaitFinished("bad-spec").code(), "INVALID_ARGUMENT");
}

TEST(AgentTasksTest, AProgramThatCannotRunFailsTheTask) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator,
                     [](AgentOptions& options) { options.task_command = {"/nowhere/lepton"}; });
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Start(Task("t", "echo"));
  const wire::TaskFinished finished = coordinator.AwaitFinished("t");
  EXPECT_EQ(finished.code(), "NOT_FOUND");
  EXPECT_THAT(finished.message(), HasSubstr("/nowhere/lepton"));
}

TEST(AgentTasksTest, RepeatedStartsRunOnceAndSlotsAreALimit) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator, [](AgentOptions& options) { options.slots = 2; });
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Start(Task("t", "sleep"));
  coordinator.Start(Task("t", "sleep"));
  wire::StartTask wide = Task("wide", "sleep");
  wide.set_slots(2);
  coordinator.Start(wide);
  EXPECT_EQ(coordinator.AwaitFinished("wide").code(), "RESOURCE_EXHAUSTED");
  EXPECT_TRUE(coordinator.AwaitFinished("wide").refused());
  coordinator.AwaitStarted("t");
  coordinator.Stop("t", 5000);
  EXPECT_EQ(coordinator.AwaitFinished("t").code(), "CANCELLED");
  size_t starts = 0;
  for (const auto& report : coordinator.Reports("t")) starts += report.has_started();
  EXPECT_EQ(starts, 1u);
  wide.set_task_id("wide2");
  coordinator.Start(wide);
  coordinator.AwaitStarted("wide2");
}

TEST(AgentTasksTest, ATaskWithoutASlotOfItsOwnTakesNone) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator, [](AgentOptions& options) { options.slots = 1; });
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  for (const char* id : {"first", "beside"}) {
    wire::StartTask start = Task(id, "sleep");
    start.set_no_slot(true);
    coordinator.Start(start);
    coordinator.AwaitStarted(id);
  }
  coordinator.Start(Task("counted", "sleep"));
  coordinator.AwaitStarted("counted");
  wire::StartTask last = Task("last", "sleep");
  last.set_no_slot(true);
  coordinator.Start(last);
  coordinator.AwaitStarted("last");
}

TEST(AgentTasksTest, MuchOutputIsCutAndThinnedOut) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Start(Task("t", "chatty"));
  EXPECT_EQ(coordinator.AwaitFinished("t").code(), "OK");
  const std::vector<std::string> lines = coordinator.LogLines("t");
  EXPECT_THAT(lines, Contains("bad ?? bytes"));
  EXPECT_THAT(lines, Contains(std::string(8192, 'x') + " [cut]"));
  EXPECT_THAT(lines, Contains("line 100"));
  EXPECT_THAT(AllText(lines), HasSubstr("lines dropped"));
  EXPECT_LT(lines.size(), 6500u);
}

TEST(AgentTasksTest, AGangMeetsAndReduces) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  constexpr uint32_t kSize = 3;
  wire::TaskGroup group;
  group.set_epoch(1);
  for (uint32_t rank = 0; rank < kSize; ++rank) {
    wire::StartTask start = Task("g.r" + std::to_string(rank), "gang");
    start.set_rank(rank);
    start.set_size(kSize);
    start.set_epoch(1);
    start.set_group_token("0123456789abcdef");
    coordinator.Start(start);
  }
  for (uint32_t rank = 0; rank < kSize; ++rank) {
    const wire::TaskReport report = coordinator.AwaitReport(
        "g.r" + std::to_string(rank), [](const auto& r) { return r.has_endpoint(); });
    wire::Member& member = *group.add_members();
    member.set_rank(rank);
    member.set_address(report.endpoint().address());
  }
  for (uint32_t rank = 0; rank < kSize; ++rank) {
    group.set_task_id("g.r" + std::to_string(rank));
    coordinator.Group(group);
  }
  for (uint32_t rank = 0; rank < kSize; ++rank) {
    const wire::TaskFinished finished = coordinator.AwaitFinished("g.r" + std::to_string(rank));
    ASSERT_EQ(finished.code(), "OK") << finished.message();
    EXPECT_EQ(finished.metrics().at("sum"), 6);
  }
}

TEST(AgentTasksTest, OnceItsEndIsKnownATaskOfTheSameIdMayRun) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  for (int time = 1; time <= 2; ++time) {
    coordinator.Start(Task("nightly.a1.r0", "echo"));
    coordinator.AwaitFinished("nightly.a1.r0");
    ASSERT_TRUE(coordinator.AwaitHeartbeats(2));  // its acknowledgement has been read
    coordinator.ForgetTask("nightly.a1.r0");
  }
}

}  // namespace
}  // namespace lepton::worker
