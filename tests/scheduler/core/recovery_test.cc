// Gangs that break: restarts, their limits, reports, log policies.
#include <gmock/gmock.h>

#include "scheduler/core/turn.h"
#include "tests/scheduler/core/sim.h"

namespace lepton::scheduler {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

TEST(Backoff, DoublesUpToTheCap) {
  EXPECT_EQ(BackoffMs(1'000, 1, 30'000), 1'000);
  EXPECT_EQ(BackoffMs(1'000, 2, 30'000), 2'000);
  EXPECT_EQ(BackoffMs(1'000, 5, 30'000), 16'000);
  EXPECT_EQ(BackoffMs(1'000, 60, 30'000), 30'000);
  EXPECT_EQ(BackoffMs(0, 60, 30'000), 0);
}

TEST(Recovery, LostWorkerRestartsTheGangOnWhatRemains) {
  TwoRanks two;
  Sim& sim = two.sim;
  sim.RunAll(two.id);
  sim.Checkpoint(two.id + ".a1.r0", 100, "c100");
  sim.Lose("w2");
  EXPECT_EQ(sim.StateOf(two.id), "RECOVERING");
  ASSERT_THAT(sim.out.stops, SizeIs(1)) << "the survivor";
  EXPECT_EQ(sim.out.stops[0].second.task_id(), two.id + ".a1.r0");
  sim.StopAll();
  EXPECT_EQ(sim.StateOf(two.id), "RECOVERING") << "back-off";
  EXPECT_EQ(sim.job(two.id).worker_restarts(), 1u);
  EXPECT_EQ(sim.job(two.id).task_restarts(), 0u);
  sim.Pass(999);
  EXPECT_EQ(sim.StateOf(two.id), "RECOVERING");
  sim.Pass(1);
  EXPECT_EQ(sim.StateOf(two.id), "STARTING");
  ASSERT_THAT(sim.out.starts, SizeIs(1)) << "one worker is left, and enough";
  const wire::StartTask& start = sim.out.starts[0].second;
  EXPECT_EQ(start.task_id(), two.id + ".a2.r0");
  EXPECT_EQ(start.attempt(), 2u);
  EXPECT_EQ(start.resume_checkpoint(), "c100");
  std::vector<std::string> inputs;
  for (const wire::ObjectRef& ref : start.inputs()) inputs.push_back(ref.digest());
  EXPECT_THAT(inputs, ElementsAre("data", "table", "c100", "c100.data"));
}

TEST(Recovery, TooFewWorkersLeftMeansQueuedWithTheReason) {
  TwoRanks two(2);
  Sim& sim = two.sim;
  sim.RunAll(two.id);
  sim.Lose("w2");
  sim.StopAll();
  sim.Pass(1'000);
  EXPECT_EQ(sim.StateOf(two.id), "QUEUED");
  EXPECT_EQ(WaitingReason(sim.state(), JobId(two.id)), "needs 2 x 1 slots, 1 free of 1");
  sim.Hello("w3");
  EXPECT_EQ(sim.StateOf(two.id), "STARTING");
}

TEST(Recovery, ABackOffThatEndsWhileTheCoordinatorIsAwayEndsWithItsReturn) {
  Sim sim;
  sim.Hello("w1");
  const std::string id = sim.Submit(Sim::Train());
  sim.RunAll(id);
  sim.Finish(id + ".a1.r0", "INTERNAL", "oops");
  ASSERT_EQ(sim.StateOf(id), "RECOVERING");
  sim.now += 2'000;
  sim.Restart();
  sim.Hello("w1");
  sim.Pass(10'000);
  EXPECT_EQ(sim.StateOf(id), "STARTING");
}

TEST(Recovery, ATimeThatPassesWithAnotherInputStillGetsItsTick) {
  Sim sim;
  spec::JobSpec spec = Sim::Train();
  spec.deadline = std::chrono::seconds(1);
  const std::string id = sim.Submit(spec);
  sim.now += 2'000;
  sim.Hello("w1");
  sim.Pass(10);
  EXPECT_EQ(sim.StateOf(id), "STOPPING");
  EXPECT_EQ(sim.job(id).reason_code(), "DEADLINE");
}

TEST(Recovery, WorkerLostWhileStarting) {
  TwoRanks two;
  two.sim.Lose("w1");
  EXPECT_EQ(two.sim.StateOf(two.id), "RECOVERING");
  two.sim.StopAll();
  two.sim.Pass(1'000);
  EXPECT_EQ(two.sim.StateOf(two.id), "STARTING");
}

TEST(Recovery, WorkerLostWhileStoppingEndsTheStop) {
  TwoRanks two;
  two.sim.RunAll(two.id);
  two.sim.On(CancelJob{JobId(two.id), "asked"});
  two.sim.Lose("w1");
  EXPECT_EQ(two.sim.StateOf(two.id), "STOPPING");
  two.sim.Lose("w2");
  EXPECT_EQ(two.sim.StateOf(two.id), "CANCELLED");
}

TEST(Recovery, KilledTaskIsAWorkerFaultAndAnErrorIsATaskFault) {
  Sim sim;
  sim.Hello("w1");
  const std::string id = sim.Submit(Sim::Train());
  sim.RunAll(id);
  sim.Finish(id + ".a1.r0", "INTERNAL", "", 9);
  EXPECT_EQ(sim.job(id).worker_restarts(), 1u);
  sim.Pass(1'000);
  sim.RunAll(id);
  sim.Finish(id + ".a2.r0", "INTERNAL", "oops");
  EXPECT_EQ(sim.job(id).worker_restarts(), 1u);
  EXPECT_EQ(sim.job(id).task_restarts(), 1u);
  sim.Pass(1'999);
  EXPECT_EQ(sim.StateOf(id), "RECOVERING") << "the second back-off is twice as long";
  sim.Pass(1);
  EXPECT_EQ(sim.StateOf(id), "STARTING");
}

// What its worker had no place for is not the job's fault, however often.
TEST(Recovery, ATaskThatItsWorkerRefusesIsNotCounted) {
  Sim sim;
  sim.Hello("w1");
  const std::string id = sim.Submit(Sim::Train());
  for (int attempt = 1; attempt <= 10; ++attempt) {
    wire::TaskReport report;
    report.mutable_finished()->set_code("UNAVAILABLE");
    report.mutable_finished()->set_message("this worker is leaving");
    report.mutable_finished()->set_refused(true);
    ASSERT_EQ(sim.StateOf(id), "STARTING");
    sim.Report(id + ".a" + std::to_string(attempt) + ".r0", std::move(report));
    ASSERT_EQ(sim.StateOf(id), "RECOVERING") << "not at once again";
    sim.Pass(999);
    ASSERT_TRUE(sim.Living(id).empty());
    if (attempt == 1) sim.Pass(1);
    if (attempt > 1) sim.Pass(30'000);  // later each time
  }
  EXPECT_EQ(sim.job(id).task_restarts(), 0u);
  EXPECT_EQ(sim.job(id).worker_restarts(), 0u);
}

// A tick while its workers had not been heard leaves a gang out. When the one that it waited for is
// gone, nothing else may bring the next.
TEST(Recovery, AStopThatWasOverdueAtTheRestartEndsThoughAWorkerWasReplaced) {
  TwoRanks two(2);
  Sim& sim = two.sim;
  sim.RunAll(two.id);
  sim.On(CancelJob{JobId(two.id)});
  sim.now += 60'000;
  sim.Restart();
  sim.now += 1'000;
  sim.Hello("w2", 1, "i1", {two.id + ".a1.r1"});
  sim.now += 3'000;
  sim.On(Tick{});
  sim.now += 1'000;
  sim.Hello("w1", 1, "i2");
  ASSERT_EQ(sim.StateOf(two.id), "STOPPING");
  sim.Pass(120'000);
  EXPECT_EQ(sim.StateOf(two.id), "CANCELLED");
}

TEST(Recovery, PeerThatBlamesTheGangDoesNotHideWhoDied) {
  TwoRanks two;
  Sim& sim = two.sim;
  sim.RunAll(two.id);
  sim.Finish(two.id + ".a1.r0", "ABORTED", "rank 1 is gone");
  sim.Finish(two.id + ".a1.r1", "INTERNAL", "", 9);
  EXPECT_EQ(sim.job(two.id).worker_restarts(), 1u);
  EXPECT_EQ(sim.job(two.id).task_restarts(), 0u);
  EXPECT_THAT(sim.job(two.id).cause(), HasSubstr("rank 1 on worker w2: killed by signal 9"));
}

// A gang that starts anew gives pulses too: who waits for a peer that hangs cannot tell.
TEST(Recovery, ARankThatHangsIsNamedWhateverItsPeersSay) {
  TwoRanks two;
  Sim& sim = two.sim;
  EXPECT_EQ(sim.out.starts[0].second.pulse_ms(), 500u);
  EXPECT_EQ(sim.out.starts[0].second.hang_ms(), 5'000u) << "half of the budget";
  EXPECT_EQ(sim.out.starts[0].second.leave_grace_ms(), 10'000u) << "to end a step and write it";
  EXPECT_FALSE(sim.out.starts[0].second.elastic());
  sim.RunAll(two.id);
  sim.Finish(two.id + ".a1.r0", "ABORTED", "rank 1 is gone");
  wire::TaskReport report;
  report.mutable_finished()->set_code("ABORTED");
  report.mutable_finished()->set_message("hung: no sign of life for 5003 ms: killed");
  report.mutable_finished()->set_signal(9);
  report.mutable_finished()->set_silent_since_ms(sim.now - 5'003);
  sim.Report(two.id + ".a1.r1", report);
  EXPECT_EQ(sim.job(two.id).worker_restarts(), 1u);
  EXPECT_EQ(sim.job(two.id).reason_code(), "HUNG");
  EXPECT_THAT(sim.job(two.id).cause(), HasSubstr("rank 1 on worker w2: hung: no sign of life"));
}

TEST(Recovery, FatalErrorBehindAnAbortIsNotRetried) {
  TwoRanks two;
  two.sim.RunAll(two.id);
  two.sim.Finish(two.id + ".a1.r0", "ABORTED", "rank 1 left");
  two.sim.Finish(two.id + ".a1.r1", "FAILED_PRECONDITION", "loss is NaN");
  EXPECT_EQ(two.sim.StateOf(two.id), "FAILED");
  EXPECT_THAT(two.sim.job(two.id).error(), HasSubstr("loss is NaN"));
}

TEST(Recovery, RestartLimitOfEachKindEndsTheJob) {
  for (bool worker_fault : {false, true}) {
    Sim sim;
    sim.Hello("w1");
    spec::JobSpec spec = Sim::Train();
    spec.restart.max = 2;
    const std::string id = sim.Submit(spec);
    for (int attempt = 1; attempt <= 3; ++attempt) {
      const std::string task = id + ".a" + std::to_string(attempt) + ".r0";
      ASSERT_EQ(sim.Living(), std::vector<std::string>{task});
      sim.Run(task);
      sim.Finish(task, "INTERNAL", "oops", worker_fault ? 11 : 0);
      sim.Pass(30'000);
    }
    EXPECT_EQ(sim.StateOf(id), "FAILED");
    EXPECT_EQ(sim.job(id).reason_code(), "RESTART_LIMIT");
    EXPECT_EQ(sim.job(id).worker_restarts(), worker_fault ? 2u : 0u);
    EXPECT_EQ(sim.job(id).task_restarts(), worker_fault ? 0u : 2u);
  }
}

TEST(Recovery, RecoveredJobGoesBeforeItsEquals) {
  Sim sim;
  sim.Hello("w1");
  const std::string first = sim.Submit(Sim::Train()), second = sim.Submit(Sim::Train());
  sim.RunAll(first);
  sim.Finish(first + ".a1.r0", "INTERNAL", "oops");
  EXPECT_EQ(sim.StateOf(second), "STARTING") << "the slot is not kept idle during a back-off";
  const std::string third = sim.Submit(Sim::Train());
  sim.RunAll(second);
  sim.Finish(second + ".a1.r0", "INTERNAL", "oops");
  sim.Pass(0);
  EXPECT_EQ(sim.StateOf(third), "STARTING");
  sim.Pass(1'000);
  const std::string fourth = sim.Submit(Sim::Train());
  sim.Finish(third + ".a1.r0", "OK", "", 0, {}, "m");
  EXPECT_EQ(sim.StateOf(first), "STARTING");
  EXPECT_EQ(sim.StateOf(fourth), "QUEUED");
}

TEST(Recovery, TaskThatNeverStartsIsGivenUp) {
  TwoRanks two;
  Sim& sim = two.sim;
  sim.Run(two.id + ".a1.r0");
  sim.Pass(59'999);
  EXPECT_EQ(sim.StateOf(two.id), "STARTING");
  sim.Pass(1);
  EXPECT_EQ(sim.StateOf(two.id), "RECOVERING");
  sim.StopAll();
  EXPECT_EQ(sim.job(two.id).worker_restarts(), 1u);
}

TEST(Recovery, TaskThatDoesNotStopIsKilledThenGivenUp) {
  Sim sim;
  sim.Hello("w1");
  const std::string id = sim.Submit(Sim::Train());
  EXPECT_EQ(sim.out.starts.at(0).second.leave_grace_ms(), 10'000u) << "of one rank too";
  sim.RunAll(id);
  sim.On(CancelJob{JobId(id), "asked"});
  EXPECT_EQ(sim.out.stops.at(0).second.grace_ms(), 5'000u);
  sim.now += 15'000;
  sim.On(Tick{});
  ASSERT_THAT(sim.out.stops, SizeIs(1));
  EXPECT_EQ(sim.out.stops[0].second.grace_ms(), 0u);
  sim.now += 15'000;
  sim.On(Tick{});
  EXPECT_EQ(sim.StateOf(id), "CANCELLED");
  // It was there after all: nobody knows it any more.
  wire::TaskReport late;
  late.mutable_progress()->set_step(7);
  sim.Report(id + ".a1.r0", late);
  EXPECT_THAT(sim.out.stops, SizeIs(1));
  EXPECT_THAT(sim.out.acks, SizeIs(1));
}

// Its agent holds the end back until what was left has arrived.
TEST(Recovery, AnEndWhoseCheckpointIsOnItsWayIsWaitedFor) {
  Sim sim;
  sim.Hello("w1");
  const std::string id = sim.Submit(Sim::Train()), task = id + ".a1.r0";
  sim.RunAll(id);
  sim.On(DrainWorker{WorkerId("w1"), "maintenance"});
  for (int second = 0; second < 120; ++second) {
    sim.On(TasksStoring{WorkerId("w1"), {task, "another's"}});
    sim.Pass(1'000);
  }
  ASSERT_EQ(sim.Living(id).size(), 1u);
  sim.Checkpoint(task, 500, "c500");
  sim.Finish(task, "CANCELLED");
  ASSERT_EQ(sim.job(id).checkpoints_size(), 1);
  EXPECT_EQ(sim.job(id).checkpoints(0).step(), 500u);
}

TEST(Recovery, AnEndThatMovesNoMoreIsGivenUp) {
  Sim sim;
  sim.Hello("w1");
  const std::string id = sim.Submit(Sim::Train());
  sim.RunAll(id);
  sim.On(CancelJob{JobId(id), "asked"});
  sim.Pass(10'000);
  sim.On(TasksStoring{WorkerId("w1"), {id + ".a1.r0"}});
  sim.Pass(29'999);
  EXPECT_EQ(sim.StateOf(id), "STOPPING");
  sim.Pass(1);
  EXPECT_EQ(sim.StateOf(id), "CANCELLED");
}

TEST(Reports, DuplicatesAreAcknowledgedAndIgnored) {
  Sim sim;
  sim.Hello("w1");
  const std::string id = sim.Submit(Sim::Train());
  const std::string task = id + ".a1.r0";
  sim.Started(task);       // 1
  sim.Progress(task, 10);  // 2
  sim.Log(task, "hello");  // 3: in no record
  EXPECT_THAT(sim.out.records, IsEmpty());
  EXPECT_THAT(sim.out.accepted, SizeIs(1));
  wire::TaskReport old;
  old.mutable_progress()->set_step(5);
  for (uint64_t seq : {1, 2, 3}) {
    sim.Report(task, old, seq);
    EXPECT_THAT(sim.out.records, IsEmpty());
    EXPECT_THAT(sim.out.accepted, IsEmpty());
    ASSERT_THAT(sim.out.acks, SizeIs(1));
    EXPECT_EQ(sim.out.acks[0].seq(), 3u);
  }
  EXPECT_EQ(sim.job(id).progress().step(), 10u);
}

TEST(Reports, OfAnotherWorkerOrUnknownTaskAreTurnedAway) {
  Sim sim;
  sim.Hello("w1");
  sim.Hello("w2");
  const std::string id = sim.Submit(Sim::Train());
  const Task* task = sim.state().FindTask(id + ".a1.r0");
  const std::string other = task->worker_id() == "w1" ? "w2" : "w1";
  TaskReported forged{WorkerId(other), {}};
  forged.report.set_task_id(id + ".a1.r0");
  forged.report.set_seq(1);
  forged.report.mutable_finished()->set_code("OK");
  sim.On(forged);
  EXPECT_THAT(sim.out.records, IsEmpty());
  EXPECT_EQ(sim.StateOf(id), "STARTING");
  forged.report.set_task_id("ghost");
  forged.report.mutable_started()->set_pid(1);
  sim.On(forged);
  EXPECT_THAT(sim.out.stops, SizeIs(1));
}

TEST(LogPolicies, ExcludedWorkerIsNotUsedAgainForThisJob) {
  Sim sim;
  sim.Hello("w1");
  spec::JobSpec spec = Sim::Train();
  spec.restart.log_policies = {{"CUDA error: \\d+", "exclude_worker"}};
  const std::string id = sim.Submit(spec);
  sim.RunAll(id);
  sim.Log(id + ".a1.r0", "all is well");
  EXPECT_THAT(sim.out.stops, IsEmpty());
  sim.Log(id + ".a1.r0", "E: CUDA error: 719");
  EXPECT_THAT(sim.out.stops, SizeIs(1));
  sim.StopAll();
  sim.Pass(1'000);
  EXPECT_EQ(sim.StateOf(id), "QUEUED");
  EXPECT_THAT(WaitingReason(sim.state(), JobId(id)), HasSubstr("1 workers excluded"));
  sim.Submit(Sim::Train());
  EXPECT_THAT(sim.out.starts, SizeIs(1)) << "others may use it, and do not wait";
  sim.Hello("w2");
  ASSERT_THAT(sim.out.starts, SizeIs(1));
  EXPECT_EQ(sim.out.starts[0].first, "w2");
}

// A record with text that is not UTF-8 could not be read back; the simulation reads each.
TEST(LogPolicies, CutLinesBetweenCharacters) {
  for (const char* action : {"exclude_worker", "fail_job"}) {
    Sim sim;
    sim.Hello("w1");
    spec::JobSpec spec = Sim::Train();
    spec.restart.log_policies = {{"bad", action}};
    const std::string id = sim.Submit(spec);
    sim.RunAll(id);
    std::string line = "bad";
    for (int i = 0; i < 600; ++i) line += "\u00e9";
    sim.Log(id + ".a1.r0", line);
    sim.StopAll();
    if (std::string(action) == "fail_job") {
      EXPECT_THAT(sim.job(id).error(), HasSubstr("\u00e9'"));
    }
  }
}

TEST(LogPolicies, OneThatIsTooDearIsNotFound) {
  Sim sim;
  sim.Hello("w1");
  spec::JobSpec spec = Sim::Train();
  spec.restart.log_policies = {{"(a+)+$", "fail_job"}, {"out of memory", "fail_job"}};
  const std::string id = sim.Submit(spec);
  sim.RunAll(id);
  sim.Log(id + ".a1.r0", std::string(1000, 'a') + "!");
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
  sim.Log(id + ".a1.r0", std::string(500, 'a') + " out of memory");
  sim.StopAll();
  EXPECT_EQ(sim.StateOf(id), "FAILED");
}

TEST(LogPolicies, OneThatIsTooDearAgainAndAgainIsOut) {
  Sim sim;
  sim.Hello("w1");
  spec::JobSpec spec = Sim::Train();
  spec.restart.log_policies = {{"(a+)+$", "fail_job"}, {"out of memory", "fail_job"}};
  const std::string id = sim.Submit(spec);
  sim.RunAll(id);
  const auto begin = std::chrono::steady_clock::now();
  std::vector<Event> told;
  for (int i = 0; i < 300; ++i) {
    sim.Log(id + ".a1.r0", std::string(1000, 'a') + "!");
    told.insert(told.end(), sim.out.events.begin(), sim.out.events.end());
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(3));
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
  ASSERT_THAT(told, SizeIs(1));
  EXPECT_EQ(told[0].reason_code(), "LOG_POLICY_TOO_DEAR");
  EXPECT_THAT(told[0].cause(), HasSubstr("restart.log_policies.0: '(a+)+$'"));
  sim.Log(id + ".a1.r0", "out of memory");
  EXPECT_NE(sim.StateOf(id), "RUNNING") << "the others are looked for";
}

TEST(Journal, ReplacesTextThatIsNotUtf8) {
  Sim sim;
  sim.Hello("w1");
  SubmitJob submit;
  submit.spec = Sim::Train();
  submit.idempotency_key = "a\xff z";
  sim.On(submit);
  ASSERT_TRUE(sim.Last().status.ok());
  EXPECT_EQ(sim.job(sim.Last().id).idempotency_key(), "a\uFFFD z");
  sim.Restart();
}

TEST(LogPolicies, FailJob) {
  Sim sim;
  sim.Hello("w1");
  spec::JobSpec spec = Sim::Train();
  spec.restart.log_policies = {{"out of memory", "fail_job"}};
  const std::string id = sim.Submit(spec);
  sim.RunAll(id);
  sim.Log(id + ".a1.r0", std::string(100'000, 'x') + " out of memory");
  EXPECT_EQ(sim.StateOf(id), "RUNNING") << "only the head of an endless line is looked at";
  sim.Log(id + ".a1.r0", "rank 0: out of memory");
  sim.StopAll();
  EXPECT_EQ(sim.StateOf(id), "FAILED");
  EXPECT_THAT(sim.job(id).error(), HasSubstr("out of memory"));
}

}  // namespace
}  // namespace lepton::scheduler
