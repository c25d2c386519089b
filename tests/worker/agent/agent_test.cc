// The agent with real task processes against a fake coordinator.
#include "worker/agent.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>

#include "runtime/base/file.h"
#include "runtime/base/hash.h"
#include "tests/worker/agent/fake_coordinator.h"

namespace lepton::worker {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::Contains;
using testing::HasSubstr;

bool Alive(int64_t pid) {
  return kill(static_cast<pid_t>(pid), 0) == 0;
}

// Gone, or a zombie whose parent (init, in a container perhaps not a reaper) has not waited yet.
bool Ended(int64_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text((std::istreambuf_iterator<char>(file)), {});
  const size_t at = text.rfind(')');
  return at == std::string::npos || at + 2 >= text.size() || text[at + 2] == 'Z';
}

bool EndsSoon(int64_t pid) {
  const Deadline deadline = Deadline::In(seconds(5));
  while (!Ended(pid)) {
    if (deadline.Expired()) return false;
    std::this_thread::sleep_for(milliseconds(2));
  }
  return true;
}

// An agent on a thread of its own.
class RunningAgent {
 public:
  explicit RunningAgent(FakeCoordinator& coordinator,
                        const std::function<void(AgentOptions&)>& change = {}) {
    AgentOptions options;
    options.coordinator = coordinator.endpoint();
    options.key = coordinator.pool_key();
    options.slots = 4;
    if (change) change(options);
    auto agent = Agent::Create(std::move(options));
    EXPECT_TRUE(agent.ok()) << agent.status().ToString();
    agent_ = std::move(*agent);
    thread_ = std::thread([this] { status_ = agent_->Run(); });
  }
  ~RunningAgent() {
    if (!thread_.joinable()) return;
    const Status status = Stop();
    EXPECT_TRUE(status.ok()) << status.ToString();
  }
  Status Stop() {
    agent_->Stop();
    return Join();
  }
  Status Join() {
    thread_.join();
    return status_;
  }
  Agent& operator*() { return *agent_; }

 private:
  std::unique_ptr<Agent> agent_;
  Status status_;
  std::thread thread_;
};

wire::StartTask Task(const std::string& id, const std::string& kind) {
  wire::StartTask start;
  start.set_task_id(id);
  start.set_kind(kind);
  start.set_size(1);
  start.set_slots(1);
  return start;
}

std::string AllText(const std::vector<std::string>& lines) {
  std::string text;
  for (const std::string& line : lines) text += line + "\n";
  return text;
}

TEST(AgentTest, ATaskGetsItsInputsAndItsResultsArriveBeforeItsReports) {
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
    if (report.has_log()) continue;
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

TEST(AgentTest, HelloSaysWhatTheWorkerIs) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator, [](AgentOptions& options) {
    options.worker_id = "w-1";
    options.slots = 3;
    options.labels = {{"rack", "7"}};
    options.launcher = {"mpirun", 1, 2, "world"};
  });
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  const wire::Hello hello = coordinator.Hellos().front();
  EXPECT_EQ(hello.protocol_version(), wire::kProtocolVersion);
  EXPECT_EQ(hello.worker_id(), "w-1");
  EXPECT_EQ(hello.slots(), 3u);
  EXPECT_EQ(hello.pid(), getpid());
  EXPECT_EQ(hello.labels().at("rack"), "7");
  EXPECT_EQ(hello.launcher(), "mpirun");
  EXPECT_EQ(hello.launcher_rank(), 1u);
  EXPECT_EQ(hello.launcher_world(), "world");
  EXPECT_GT(hello.memory_bytes(), 0u);
  EXPECT_FALSE(hello.incarnation().empty());
  EXPECT_TRUE(coordinator.AwaitHeartbeats(3));
}

TEST(AgentTest, EveryWayToFailHasItsCode) {
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

TEST(AgentTest, AProgramThatCannotRunFailsTheTask) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator,
                     [](AgentOptions& options) { options.task_command = {"/nowhere/lepton"}; });
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Start(Task("t", "echo"));
  const wire::TaskFinished finished = coordinator.AwaitFinished("t");
  EXPECT_EQ(finished.code(), "NOT_FOUND");
  EXPECT_THAT(finished.message(), HasSubstr("/nowhere/lepton"));
}

TEST(AgentTest, ExternalKillIsToldAtOnce) {
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

TEST(AgentTest, AStopIsObeyedWithinItsGraceOrEnforced) {
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

TEST(AgentTest, AStopBeforeTheStartStillEndsTheTask) {
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

TEST(AgentTest, RepeatedStartsRunOnceAndSlotsAreALimit) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator, [](AgentOptions& options) { options.slots = 2; });
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Start(Task("t", "sleep"));
  coordinator.Start(Task("t", "sleep"));
  wire::StartTask wide = Task("wide", "sleep");
  wide.set_slots(2);
  coordinator.Start(wide);
  EXPECT_EQ(coordinator.AwaitFinished("wide").code(), "RESOURCE_EXHAUSTED");
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

TEST(AgentTest, MuchOutputIsCutAndThinnedOut) {
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

TEST(AgentTest, DescendantsOfATaskAreKilledWithIt) {
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

TEST(AgentTest, AGangMeetsAndReduces) {
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

TEST(AgentTest, AStopEndsTheWaitForTheGang) {
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

TEST(AgentStopTest, StoppingWithoutACoordinatorIsQuick) {
  FakeCoordinator coordinator;
  RunningAgent agent(coordinator);
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Down();
  const MonotonicTime start = RealClock().Now();
  EXPECT_TRUE(agent.Stop().ok());
  EXPECT_LT(RealClock().Now() - start, seconds(2));
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
  EXPECT_TRUE(coordinator.AwaitHeartbeats(3));
  coordinator.Stop("t", 5000);
  EXPECT_TRUE(agent.Join().ok());
  EXPECT_EQ(coordinator.AwaitFinished("t").code(), "CANCELLED");
  EXPECT_TRUE(coordinator.AwaitGoodbye());
}

TEST(AgentStopTest, TasksDieWithAKilledAgent) {
  FakeCoordinator coordinator;
  TempFolder folder;
  const std::string key = folder.path() / "pool.key", data = folder.path() / "data";
  ASSERT_TRUE(WriteFileAtomic(key, PoolKeyToJson(coordinator.pool_key()), 0600).ok());
  const std::string endpoint = coordinator.endpoint();
  const pid_t agent = fork();
  if (agent == 0) {
    execl("/proc/self/exe", "agent_test", "agent", "--coordinator", endpoint.c_str(), "--key",
          key.c_str(), "--data-dir", data.c_str(), nullptr);
    _exit(127);
  }
  ASSERT_TRUE(coordinator.AwaitWelcomed());
  coordinator.Start(Task("t", "stubborn"));
  coordinator.Start(Task("u", "sleep"));
  const int64_t t = coordinator.AwaitStarted("t"), u = coordinator.AwaitStarted("u");
  EXPECT_TRUE(Alive(t) && Alive(u));
  kill(agent, SIGKILL);
  waitpid(agent, nullptr, 0);
  EXPECT_TRUE(EndsSoon(t));
  EXPECT_TRUE(EndsSoon(u));
}

TEST(AgentOptionsTest, BadOptionsAreRefused) {
  FakeCoordinator coordinator;
  AgentOptions options;
  options.coordinator = "nonsense";
  options.key = coordinator.pool_key();
  EXPECT_EQ(Agent::Create(options).status().code(), StatusCode::kInvalidArgument);
  options.coordinator = coordinator.endpoint();
  options.key.worker.secret_key = "short";
  EXPECT_EQ(Agent::Create(options).status().code(), StatusCode::kInvalidArgument);
  options.key = coordinator.pool_key();
  options.data_dir = "/proc/no-folder-here";
  EXPECT_FALSE(Agent::Create(options).ok());
}

TEST(LauncherTest, PlacesComeFromTheLaunchersEnvironment) {
  const char* const names[] = {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "PMIX_NAMESPACE",
                               "SLURM_PROCID",         "SLURM_STEP_ID",        "SLURM_JOB_ID",
                               "SLURM_STEP_NUM_TASKS"};
  for (const char* name : names) unsetenv(name);
  EXPECT_EQ(DetectLauncher().name, "none");
  setenv("SLURM_PROCID", "1", 1);
  setenv("SLURM_STEP_ID", "0", 1);
  setenv("SLURM_JOB_ID", "77", 1);
  setenv("SLURM_STEP_NUM_TASKS", "2", 1);
  LauncherInfo info = DetectLauncher();
  EXPECT_EQ(info.name, "srun");
  EXPECT_EQ(info.rank, 1u);
  EXPECT_EQ(info.size, 2u);
  EXPECT_EQ(info.world, "77.0");
  setenv("OMPI_COMM_WORLD_RANK", "3", 1);
  setenv("OMPI_COMM_WORLD_SIZE", "4", 1);
  setenv("PMIX_NAMESPACE", "ns@1", 1);
  info = DetectLauncher();
  EXPECT_EQ(info.name, "mpirun");
  EXPECT_EQ(info.rank, 3u);
  EXPECT_EQ(info.size, 4u);
  EXPECT_EQ(info.world, "ns@1");
  setenv("OMPI_COMM_WORLD_RANK", "three", 1);
  EXPECT_EQ(DetectLauncher().name, "srun");
  for (const char* name : names) unsetenv(name);
}

}  // namespace
}  // namespace lepton::worker
