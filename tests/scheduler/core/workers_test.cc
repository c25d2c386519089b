// Workers that come, go and come back, and coordinators that do.
#include <gmock/gmock.h>

#include "tests/scheduler/core/sim.h"

namespace lepton::scheduler {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

TEST(Workers, ReconnectWithTheSameTasksRestartsNothing) {
  TwoRanks two;
  Sim& sim = two.sim;
  sim.RunAll(two.id);
  sim.Progress(two.id + ".a1.r0", 5);
  const std::string task = two.id + ".a1.r0";
  const std::string worker = sim.state().FindTask(task)->worker_id();
  sim.Hello(worker, 1, "i1", {task, "ghost"});
  ASSERT_THAT(sim.out.welcomes, SizeIs(1));
  EXPECT_EQ(sim.out.welcomes[0].unknown_task_ids(0), "ghost");
  ASSERT_EQ(sim.out.welcomes[0].acked_size(), 1);
  EXPECT_EQ(sim.out.welcomes[0].acked(0).last_seq(), 3u);
  EXPECT_THAT(sim.out.records, IsEmpty());
  EXPECT_THAT(sim.out.groups, IsEmpty());
  EXPECT_EQ(sim.StateOf(two.id), "RUNNING");
}

TEST(Workers, ReconnectBeforeTheFirstStepHearsTheGroupAgain) {
  TwoRanks two;
  two.sim.RunAll(two.id);
  const std::string task = two.id + ".a1.r1";
  two.sim.Hello(two.sim.state().FindTask(task)->worker_id(), 1, "i1", {task});
  ASSERT_THAT(two.sim.out.groups, SizeIs(1));
  EXPECT_EQ(two.sim.out.groups[0].second.task_id(), task);
}

TEST(Workers, ReconnectWithoutATaskMeansItIsLost) {
  TwoRanks two;
  two.sim.RunAll(two.id);
  two.sim.Hello("w1", 1, "i1", {});
  EXPECT_EQ(two.sim.StateOf(two.id), "RECOVERING");
}

// Its connection broke, or the coordinator died, before the order had arrived.
TEST(Workers, AStartThatWasLostIsSentAgain) {
  Sim sim;
  sim.Hello("w1");
  const std::string id = sim.Submit(Sim::Train());
  ASSERT_THAT(sim.out.starts, SizeIs(1));
  const std::string first = sim.out.starts[0].second.SerializeAsString();
  sim.Restart();
  sim.Hello("w1");
  ASSERT_THAT(sim.out.starts, SizeIs(1));
  EXPECT_EQ(sim.out.starts[0].second.SerializeAsString(), first);
  EXPECT_EQ(sim.StateOf(id), "STARTING");
  sim.RunAll(id);
  sim.Hello("w1", 1, "i1", {id + ".a1.r0"});
  EXPECT_THAT(sim.out.starts, IsEmpty());
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
  EXPECT_EQ(sim.job(id).worker_restarts(), 0u);
}

TEST(Workers, ALostStartOfAnyKindIsSentAgainAsItWas) {
  Sim sim;
  const auto again = [&sim](const std::string& worker) {
    std::map<std::string, std::string> orders;
    for (const auto& [to, start] : sim.out.starts) {
      if (to == worker) orders[start.task_id()] = start.SerializeAsString();
    }
    EXPECT_THAT(orders, SizeIs(1)) << worker;
    return orders;
  };
  // The second attempt of a job, from its checkpoint.
  sim.Hello("w1");
  const std::string id = sim.Submit(Sim::Train());
  sim.RunAll(id);
  sim.Checkpoint(id + ".a1.r0", 5, "c5");
  sim.Finish(id + ".a1.r0", "ABORTED", "", 9);
  sim.Pass(1'000);
  const auto job = again("w1");
  sim.Hello("w1");
  EXPECT_EQ(again("w1"), job);
  sim.RunAll(id);
  // A trial.
  sim.Hello("w2");
  sim.Submit(Sim::Tune("random", 1));
  const auto trial = again("w2");
  sim.Hello("w2");
  EXPECT_EQ(again("w2"), trial);
  // A replica.
  sim.Hello("w3");
  CreateDeployment create;
  create.spec.name = "digits";
  create.spec.model = "digits@1";
  create.spec.replicas = 1;
  create.model_manifest = "m1";
  create.model = "digits@1";
  create.model_objects.emplace_back().set_digest("m1");
  sim.On(create);
  const auto replica = again("w3");
  sim.Hello("w3");
  EXPECT_EQ(again("w3"), replica);
}

TEST(Workers, AJoinersLostStartIsSentAgainAsItWas) {
  Sim sim;
  sim.Hello("w0");
  const std::string id = sim.Submit(Sim::Elastic(1, 2));
  sim.RunAll(id);
  sim.Progress(id + ".a1.r0", 7);
  sim.Hello("w1");
  ASSERT_THAT(sim.out.starts, SizeIs(1));
  const std::string first = sim.out.starts[0].second.SerializeAsString();
  EXPECT_TRUE(sim.out.starts[0].second.joins());
  sim.Hello("w1");
  ASSERT_THAT(sim.out.starts, SizeIs(1));
  EXPECT_EQ(sim.out.starts[0].second.SerializeAsString(), first);
}

TEST(Workers, WhatIsToStopIsNotStartedAgain) {
  Sim sim;
  sim.Hello("w1");
  const std::string id = sim.Submit(Sim::Train());
  sim.On(CancelJob{JobId(id), "asked"});
  sim.Hello("w1");
  EXPECT_THAT(sim.out.starts, IsEmpty());
  ASSERT_THAT(sim.out.stops, SizeIs(1)) << "it may run: the order may have crossed the Hello";
  sim.StopAll();
  EXPECT_EQ(sim.StateOf(id), "CANCELLED");
}

TEST(Workers, NewIncarnationHasLostEverythingItRan) {
  Sim sim;
  sim.Hello("w1");
  const std::string id = sim.Submit(Sim::Train());
  sim.RunAll(id);
  sim.Hello("w1", 1, "i2", {id + ".a1.r0"});
  EXPECT_EQ(sim.StateOf(id), "RECOVERING");
  ASSERT_THAT(sim.out.welcomes, SizeIs(1));
  EXPECT_EQ(sim.out.welcomes[0].unknown_task_ids_size(), 1);
  sim.Pass(1'000);
  EXPECT_EQ(sim.StateOf(id), "STARTING");
}

TEST(Workers, LostOneThatComesBackIsUsedAgainAndItsOldTasksDie) {
  Sim sim;
  sim.Hello("w1");
  const std::string id = sim.Submit(Sim::Train());
  sim.RunAll(id);
  sim.Lose("w1");
  sim.Pass(1'000);
  EXPECT_EQ(sim.StateOf(id), "QUEUED");
  sim.Hello("w1", 1, "i1", {id + ".a1.r0"});
  ASSERT_EQ(sim.out.welcomes.at(0).unknown_task_ids_size(), 1);
  EXPECT_EQ(sim.StateOf(id), "STARTING");
}

TEST(Workers, DrainMovesWorkElsewhereAndCountsNoRestart) {
  Sim sim;
  sim.Hello("w1");
  const std::string id = sim.Submit(Sim::Train());
  sim.RunAll(id);
  sim.Hello("w2");
  sim.On(DrainWorker{WorkerId("w1"), "maintenance"});
  EXPECT_TRUE(sim.Last().status.ok());
  EXPECT_THAT(sim.out.drains, ElementsAre("w1"));
  sim.StopAll();
  EXPECT_EQ(sim.StateOf(id), "STARTING") << "at once";
  EXPECT_EQ(sim.state().FindTask(id + ".a2.r0")->worker_id(), "w2");
  EXPECT_EQ(sim.job(id).worker_restarts() + sim.job(id).task_restarts(), 0u);
  sim.On(DrainWorker{WorkerId("w9"), ""});
  EXPECT_EQ(sim.Last().status.code(), StatusCode::kNotFound);
}

TEST(Workers, OneThatLeavesGetsNothingNewAndKeepsWhatItHas) {
  Sim sim;
  sim.Hello("w1", 2);
  const std::string first = sim.Submit(Sim::Train());
  sim.RunAll(first);
  sim.On(WorkerLeaving{WorkerId("w1")});
  EXPECT_THAT(sim.out.stops, IsEmpty());
  const std::string second = sim.Submit(Sim::Train());
  EXPECT_EQ(sim.StateOf(first), "RUNNING");
  EXPECT_EQ(sim.StateOf(second), "QUEUED");
  sim.On(WorkerLeaving{WorkerId("w1")});
  EXPECT_THAT(sim.out.records, IsEmpty()) << "said with every heartbeat";
  sim.On(WorkerLeaving{WorkerId("w9")});
  EXPECT_THAT(sim.out.records, IsEmpty());
}

TEST(Workers, LostOnesAreForgottenAfterAWhile) {
  Sim sim;
  sim.Hello("w1");
  sim.Lose("w1");
  sim.Pass(600'000);
  EXPECT_THAT(sim.state().workers, IsEmpty());
}

TEST(Restart, RunningWorkIsLeftUntouched) {
  for (bool with_snapshot : {false, true}) {
    TwoRanks two;
    Sim& sim = two.sim;
    sim.RunAll(two.id);
    if (with_snapshot) sim.TakeSnapshot();
    sim.Progress(two.id + ".a1.r0", 50);
    const std::string r0 = two.id + ".a1.r0", r1 = two.id + ".a1.r1";
    const std::string w0 = sim.state().FindTask(r0)->worker_id();
    const std::string w1 = sim.state().FindTask(r1)->worker_id();
    sim.Restart();
    sim.Hello(w0, 1, "i1", {r0});
    sim.Pass(5'000);
    sim.Hello(w1, 1, "i1", {r1});
    sim.Pass(60'000);
    EXPECT_EQ(sim.StateOf(two.id), "RUNNING");
    EXPECT_EQ(sim.job(two.id).attempt(), 1u);
    sim.Finish(r0, "OK", "", 0, {}, "m");
    sim.Finish(r1);
    EXPECT_EQ(sim.StateOf(two.id), "SUCCEEDED");
  }
}

std::vector<std::string> ToldOfAbsence(const Job& job) {
  std::vector<std::string> told;
  for (const Event& event : job.events()) {
    if (event.reason_code() == "COORDINATOR_AWAY") told.push_back(event.cause());
  }
  return told;
}

// From the last that a worker heard of the one before, or that is in its journal, to the start.
TEST(Restart, RunningJobsAreToldHowLongThereWasNoCoordinatorAndWhoCameBack) {
  TwoRanks two;
  Sim& sim = two.sim;
  sim.RunAll(two.id);
  const std::string queued = sim.Submit(Sim::Train(2, 2));
  sim.now += 10'000;
  sim.Restart();
  sim.now += 300;
  sim.silent_ms = 1'500;
  sim.Hello("w1", 1, "i1", {two.id + ".a1.r0"});
  EXPECT_THAT(ToldOfAbsence(sim.job(two.id)), IsEmpty());
  sim.now += 700;
  sim.silent_ms = 9'000;
  sim.Hello("w2", 1, "i1", {two.id + ".a1.r1"});
  EXPECT_THAT(ToldOfAbsence(sim.job(two.id)),
              ElementsAre("the coordinator was away for 1200 ms; 2 of 2 workers came back"));
  ASSERT_THAT(sim.out.returns, SizeIs(1));
  EXPECT_EQ(sim.out.returns[0].away_ms, 1'200);
  EXPECT_THAT(ToldOfAbsence(sim.job(queued)), IsEmpty());
  sim.Hello("w2", 1, "i1", {two.id + ".a1.r1"});  // its connection alone broke
  sim.Pass(60'000);
  EXPECT_THAT(ToldOfAbsence(sim.job(two.id)), SizeIs(1));
}

TEST(Restart, JobsAreToldOfAWorkerThatDidNotComeBackToo) {
  TwoRanks two;
  Sim& sim = two.sim;
  sim.RunAll(two.id);
  sim.now += 2'000;
  sim.Restart();
  sim.Hello("w2", 1, "i1", {two.id + ".a1.r1"});
  sim.Pass(14'999);
  EXPECT_THAT(ToldOfAbsence(sim.job(two.id)), IsEmpty());
  sim.Pass(1);
  EXPECT_THAT(ToldOfAbsence(sim.job(two.id)),
              ElementsAre("the coordinator was away for 2000 ms; 1 of 2 workers came back"));
}

TEST(Restart, WorkerThatDoesNotComeBackIsLostAfterItsLease) {
  TwoRanks two;
  Sim& sim = two.sim;
  sim.RunAll(two.id);
  const std::string r0 = two.id + ".a1.r0";
  sim.Restart();
  sim.Hello(sim.state().FindTask(r0)->worker_id(), 1, "i1", {r0});
  sim.Pass(14'999);
  EXPECT_EQ(sim.StateOf(two.id), "RUNNING");
  sim.Pass(1);
  EXPECT_EQ(sim.StateOf(two.id), "RECOVERING");
}

// It looks for a coordinator that is away every two seconds.
TEST(Restart, AShortLeaseGivesWorkersTimeToComeBackAllTheSame) {
  ReactorOptions options = Sim::Options();
  options.lease_ms = 1'000;
  Sim sim(options);
  sim.Hello("w1");
  const std::string id = sim.Submit(Sim::Train());
  sim.RunAll(id);
  sim.Restart();
  sim.Pass(2'999);
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
  sim.Hello("w1", 1, "i1", {id + ".a1.r0"});
  sim.Pass(60'000);
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
  sim.Restart();
  sim.Pass(3'000);
  EXPECT_EQ(sim.StateOf(id), "RECOVERING");
}

// What they had to do in time may be done, and not told yet.
TEST(Restart, WorkersAreHeardBeforeTheirTimeOutsCount) {
  Sim sim;
  sim.Hello("w1");
  sim.Hello("w2");
  const std::string starting = sim.Submit(Sim::Train()), stopping = sim.Submit(Sim::Train());
  const std::string one = starting + ".a1.r0", other = stopping + ".a1.r0";
  sim.RunAll(stopping);
  sim.On(CancelJob{JobId(stopping), "asked"});
  sim.Pass(15'000);
  sim.now += 120'000;
  sim.Restart();
  sim.Pass(100);
  sim.Hello("w1", 1, "i1", {one});
  sim.Hello("w2", 1, "i1", {other});
  sim.Pass(100);
  EXPECT_EQ(sim.StateOf(starting), "STARTING");
  EXPECT_EQ(sim.StateOf(stopping), "STOPPING");
  sim.Run(one);
  EXPECT_EQ(sim.StateOf(starting), "RUNNING");
  // One of which nothing comes is given up all the same.
  sim.Pass(5'000);
  EXPECT_EQ(sim.StateOf(stopping), "CANCELLED");
}

TEST(Restart, AFormingGangIsHeardToo) {
  Sim sim;
  for (int i = 0; i < 3; ++i) sim.Hello("w" + std::to_string(i));
  const std::string id = sim.Submit(Sim::Elastic(1, 3));
  sim.RunAll(id);
  sim.Progress(id + ".a1.r0", 7);
  sim.Finish(id + ".a1.r1", "ABORTED", "", 9);
  sim.now += 60'000;
  sim.Restart();
  sim.Pass(100);
  for (const int i : {0, 2}) {
    const std::string task = id + ".a1.r" + std::to_string(i);
    sim.Hello("w" + std::to_string(i), 1, "i1", {task});
    sim.Pass(100);
    sim.Endpoint(task, 1, "rank 1 died");
  }
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
  EXPECT_EQ(sim.state().FindGang(id + ".a1")->members_size(), 2);
  EXPECT_FALSE(sim.state().FindGang(id + ".a1")->forming());
}

TEST(Restart, NothingIsPlacedOnWorkersThatHaveNotComeBack) {
  Sim sim;
  sim.Hello("w1");
  sim.Restart();
  const std::string id = sim.Submit(Sim::Train());
  EXPECT_EQ(sim.StateOf(id), "QUEUED");
  sim.Hello("w1");
  EXPECT_EQ(sim.StateOf(id), "STARTING");
}

TEST(Restart, StopThatWasNotHeardIsSaidAgain) {
  Sim sim;
  sim.Hello("w1");
  const std::string id = sim.Submit(Sim::Train());
  sim.RunAll(id);
  sim.On(CancelJob{JobId(id), "asked"});
  sim.Restart();
  sim.Hello("w1", 1, "i1", {id + ".a1.r0"});
  ASSERT_THAT(sim.out.stops, SizeIs(1));
  EXPECT_EQ(sim.out.stops[0].second.task_id(), id + ".a1.r0");
  sim.StopAll();
  EXPECT_EQ(sim.StateOf(id), "CANCELLED");
}

TEST(Restart, DamagedSnapshotsAndRecordsAreRefused) {
  EXPECT_EQ(State::Restore("\xff\xff rubbish").status().code(), StatusCode::kDataLoss);
  Snapshot newer;
  newer.set_version(99);
  EXPECT_EQ(State::Restore(newer.SerializeAsString()).status().code(),
            StatusCode::kFailedPrecondition);
  State state;
  EXPECT_EQ(ApplyBytes("\xff\xff rubbish", state).code(), StatusCode::kDataLoss);
  Record record;
  record.set_version(2);
  record.set_seq(1);
  EXPECT_EQ(Apply(record, state).code(), StatusCode::kFailedPrecondition);
}

TEST(Bf16Sums, ArePairsWhereEveryWorkerIsFastWithThem) {
  Sim sim;
  sim.bf16_sums = "pairs";
  sim.Hello("w1");
  sim.Hello("w2");
  sim.Submit(Sim::Train());
  EXPECT_EQ(sim.out.starts.at(0).second.bf16_sums(), "pairs");
  sim.bf16_sums = "tiles";
  sim.Hello("w3");
  sim.Submit(Sim::Train());
  EXPECT_EQ(sim.out.starts.at(0).second.bf16_sums(), "tiles");
  sim.Lose("w3");
  sim.bf16_sums = "";  // of a worker that does not tell
  sim.Hello("w4");
  sim.Submit(Sim::Train());
  EXPECT_EQ(sim.out.starts.at(0).second.bf16_sums(), "tiles");
}

// Its checkpoints, and its peers, are of these bits.
TEST(Bf16Sums, StayAJobsForAllItsAttemptsAndJoiners) {
  Sim sim;
  sim.bf16_sums = "pairs";
  sim.Hello("w1");
  const std::string id = sim.Submit(Sim::Elastic(1, 2));
  ASSERT_THAT(sim.out.starts, SizeIs(1));
  sim.RunAll(id);
  sim.Progress(id + ".a1.r0", 5);
  sim.bf16_sums = "tiles";
  sim.Hello("w2");
  ASSERT_THAT(sim.out.starts, SizeIs(1));
  EXPECT_TRUE(sim.out.starts[0].second.joins());
  EXPECT_EQ(sim.out.starts[0].second.bf16_sums(), "pairs");
  sim.Lose("w1");
  sim.Lose("w2");
  sim.Restart();
  sim.Hello("w3");
  sim.Pass(5'000);
  EXPECT_THAT(sim.Living(id), SizeIs(1));
  EXPECT_EQ(sim.state().gangs.at(id + ".a2").bf16_sums(), "pairs");
}

}  // namespace
}  // namespace lepton::scheduler
