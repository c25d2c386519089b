// How ranks of elastic gangs end, and what of theirs is still on its way when they do.
#include <gmock/gmock.h>

#include "scheduler/core/elastic.h"
#include "tests/scheduler/core/sim.h"

namespace lepton::scheduler {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class ElasticEnds : public GangTest {
 protected:
  void Storing(int seat) {
    sim.On(TasksStoring{WorkerId("w" + std::to_string(seat)), {Seat(seat)}});
  }
};

// They came through the last barrier, behind which their leader died with the model.
TEST_F(ElasticEnds, RanksWithoutTheModelAreNoResult) {
  Start(1, 3);
  sim.Checkpoint(Seat(0), 5, "c5");
  sim.Finish(Seat(0), "ABORTED", "", 9);
  sim.Finish(Seat(1), "OK", "", 0, {}, Sim::kNoModel);
  sim.Finish(Seat(2), "OK", "", 0, {}, Sim::kNoModel);
  sim.StopAll();
  EXPECT_EQ(sim.StateOf(id), "RECOVERING");
  EXPECT_EQ(sim.job(id).worker_restarts(), 1u);
}

// Nobody is to blame by name, and still it starts again.
TEST_F(ElasticEnds, AGroupThatBreaksTooOftenStartsAgain) {
  spec::JobSpec spec = Sim::Elastic(1, 2);
  spec.restart.max = 1;
  Place(spec, 2);
  sim.RunAll(id);
  for (uint64_t epoch = 1; epoch <= 2; ++epoch) {
    sim.Endpoint(Seat(0), epoch, "no answer in time from rank 1");
    if (epoch == 1) sim.Endpoint(Seat(1), epoch, "no answer in time from rank 0");
  }
  EXPECT_EQ(sim.StateOf(id), "RECOVERING");
  sim.StopAll();
  EXPECT_EQ(sim.StateOf(id), "RECOVERING");
  EXPECT_EQ(sim.job(id).worker_restarts(), 1u);
  sim.Pass(2'000);
  EXPECT_EQ(sim.StateOf(id), "STARTING");
}

// The others told of the end of their group before it told of its own.
TEST_F(ElasticEnds, ARanksOwnErrorEndsTheJobThoughItsPeersToldOfABrokenGroupFirst) {
  spec::JobSpec spec = Sim::Elastic(1, 3);
  spec.restart.max = 0;
  Start(spec, 3);
  sim.Endpoint(Seat(0), 1, "rank 1 is gone");
  EXPECT_EQ(sim.StateOf(id), "RECOVERING");
  sim.Finish(Seat(1), "FAILED_PRECONDITION", "the loss is nan");
  sim.StopAll();
  EXPECT_EQ(sim.StateOf(id), "FAILED");
  EXPECT_EQ(sim.job(id).reason_code(), "TASK_FAILED");
  EXPECT_THAT(sim.job(id).error(), HasSubstr("rank 1 on worker w1: FAILED_PRECONDITION"));
  EXPECT_EQ(sim.job(id).worker_restarts(), 0u);
}

TEST_F(ElasticEnds, ARanksOwnErrorIsNoWorkersFaultThoughItsPeersToldOfABrokenGroupFirst) {
  spec::JobSpec spec = Sim::Elastic(1, 3);
  spec.restart.max = 1;
  Start(spec, 3);
  sim.Finish(Seat(2), "ABORTED", "", 9);
  sim.Endpoint(Seat(0), 1, "rank 2 is gone");
  sim.Endpoint(Seat(1), 1, "rank 2 is gone");
  sim.Endpoint(Seat(0), 2, "rank 1 is gone");
  EXPECT_EQ(sim.StateOf(id), "RECOVERING");
  sim.Finish(Seat(1), "INTERNAL", "a bug");
  sim.StopAll();
  EXPECT_EQ(sim.StateOf(id), "RECOVERING");
  EXPECT_EQ(sim.job(id).reason_code(), "TASK_FAILED");
  EXPECT_EQ(sim.job(id).worker_restarts(), 0u);
  EXPECT_EQ(sim.job(id).task_restarts(), 1u);
}

// It was to get the state from the rank that died.
TEST_F(ElasticEnds, AJoinerThatWasInNoGroupYetCannotGoOnAlone) {
  Start(1, 1, 2);
  sim.Hello("w1");
  sim.Run(Seat(1));
  ASSERT_THAT(Members(), ElementsAre(0, 1));
  ASSERT_TRUE(gang().forming());
  sim.Finish(Seat(0), "ABORTED", "", 9);
  EXPECT_EQ(sim.StateOf(id), "RECOVERING");
  sim.StopAll();
  EXPECT_EQ(sim.job(id).worker_restarts(), 1u);
  EXPECT_EQ(sim.job(id).task_restarts(), 0u);
}

// One that never was a member says nothing of the group's end.
TEST_F(ElasticEnds, AJoinersErrorIsNotWhyAGroupBroke) {
  spec::JobSpec spec = Sim::Elastic(1, 3);
  spec.restart.max = 0;
  Start(spec, 2);
  sim.Hello("w2");
  sim.Finish(Seat(2), "DATA_LOSS", "its disk is broken");
  sim.Endpoint(Seat(0), 1, "no answer in time from rank 1");
  sim.StopAll();
  EXPECT_EQ(sim.job(id).reason_code(), "RESTART_LIMIT");
  EXPECT_THAT(sim.job(id).error(), HasSubstr("no answer in time from rank 1"));
}

TEST_F(ElasticEnds, TheModelOfAFormerLeaderIsTheResult) {
  Start(1, 3);
  sim.Endpoint(Seat(1), 1, "rank 2 is gone");
  sim.Finish(Seat(2), "ABORTED", "", 9);
  sim.Finish(Seat(0), "OK", "", 0, {}, "m1");
  sim.StopAll();
  EXPECT_EQ(sim.StateOf(id), "SUCCEEDED");
  EXPECT_EQ(sim.job(id).result().model_manifest(), "m1");
}

TEST_F(ElasticEnds, TheOthersDoNotWaitForWhatADeadRankLeft) {
  Start(1, 3);
  sim.Endpoint(Seat(0), 1, "rank 1 is gone");
  sim.Gone(Seat(1), "ABORTED", 9);
  EXPECT_THAT(Members(), ElementsAre(0u, 2u));
  EXPECT_EQ(gang().faults_in_row(), 1u);
  sim.Endpoint(Seat(2), 1, "rank 1 is gone");
  sim.Recovered(Seat(0), 8);
  EXPECT_EQ(sim.job(id).recoveries(0).reason_code(), "RANK_LOST");
  // Its reports are still wanted, and its place is taken until the last.
  sim.Checkpoint(Seat(1), 7, "c7");
  EXPECT_THAT(sim.job(id).checkpoints(), SizeIs(1));
  EXPECT_EQ(sim.state().used_slots.at(WorkerId("w1")), 1u);
  sim.Finish(Seat(1), "ABORTED", "", 9);
  EXPECT_EQ(gang().tasks(3).worker_id(), "w1") << "taken anew at once";
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
  EXPECT_EQ(gang().epoch(), 3u) << "its end is no second fault";
}

TEST_F(ElasticEnds, ALeaverWhoseCheckpointIsOnItsWayIsNoFault) {
  Start(1, 3);
  sim.On(DrainWorker{WorkerId("w1"), "maintenance"});
  sim.Endpoint(Seat(0), 1, "1 of 3 ranks left");
  sim.Gone(Seat(1), "CANCELLED");
  sim.Endpoint(Seat(2), 1, "1 of 3 ranks left");
  EXPECT_FALSE(gang().forming());
  EXPECT_THAT(Members(), ElementsAre(0u, 2u));
  sim.Pass(120'000);
  sim.Finish(Seat(1), "CANCELLED", "left");
  EXPECT_EQ(gang().faults_in_row(), 0u);
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
}

TEST_F(ElasticEnds, ALeaderThatIsThroughIsWaitedForHoweverLongItsModelTakes) {
  Start(1, 2);
  sim.Finish(Seat(1), "ABORTED", "", 9);
  sim.Gone(Seat(0), "OK");
  for (int second = 0; second < 60; ++second) {
    Storing(0);
    sim.Pass(1'000);
  }
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
  sim.Finish(Seat(0), "OK", "", 0, {}, "m1");
  EXPECT_EQ(sim.StateOf(id), "SUCCEEDED");
  EXPECT_EQ(sim.job(id).attempt(), 1u);
}

TEST_F(ElasticEnds, SoDoesARankThatWouldMeetWithIt) {
  Start(1, 3);
  sim.Finish(Seat(2), "ABORTED", "", 9);
  sim.Endpoint(Seat(1), 1, "rank 2 is gone");
  sim.Gone(Seat(0), "OK");
  sim.Pass(60'000);
  EXPECT_THAT(Members(), ElementsAre(0u, 1u));
  sim.Finish(Seat(0), "OK", "", 0, {}, "m1");
  sim.StopAll();
  EXPECT_EQ(sim.StateOf(id), "SUCCEEDED");
}

TEST_F(ElasticEnds, WhenNobodyCanGoOnWhatTheyLeftIsTakenStill) {
  Start(1, 2);
  sim.Gone(Seat(0), "ABORTED", 9);
  EXPECT_THAT(Members(), ElementsAre(1u));
  sim.Gone(Seat(1), "ABORTED", 9);
  EXPECT_EQ(sim.StateOf(id), "RECOVERING");
  EXPECT_THAT(sim.job(id).cause(), HasSubstr("rank 1 on worker w1: killed by signal 9"));
  for (int second = 0; second < 60; ++second) {
    Storing(0);
    Storing(1);
    sim.Pass(1'000);
  }
  sim.Checkpoint(Seat(1), 7, "c7");
  sim.Finish(Seat(1), "ABORTED", "", 9);
  sim.Finish(Seat(0), "ABORTED", "", 9);
  EXPECT_EQ(sim.StateOf(id), "RECOVERING");
  EXPECT_THAT(sim.job(id).checkpoints(), SizeIs(1));
}

TEST_F(ElasticEnds, OneThatIsGoneIsNeitherStoppedForItsSilenceNorMetNorReplacedInPlace) {
  Start(2, 2);
  sim.Gone(Seat(1), "INTERNAL");  // an error of its own: its last report judges the gang
  sim.Endpoint(Seat(0), 1, "rank 1 is gone");
  sim.Pass(60'000);
  EXPECT_EQ(gang().tasks(1).state(), TASK_STARTED);
  EXPECT_THAT(sim.out.groups, IsEmpty());
  sim.Finish(Seat(1), "INTERNAL", "a bug");
  EXPECT_EQ(sim.StateOf(id), "RECOVERING");
}

TEST_F(ElasticEnds, ADeathThatIsOneTooManyIsBlamedOnWhoDied) {
  Start(2, 2);
  sim.Gone(Seat(1), "ABORTED", 9);
  sim.Endpoint(Seat(0), 1, "rank 1 is gone");
  EXPECT_EQ(sim.job(id).reason_code(), "TASK_KILLED");
  sim.Finish(Seat(1), "ABORTED", "", 9);
  sim.StopAll();
  EXPECT_EQ(sim.StateOf(id), "RECOVERING");
  EXPECT_EQ(sim.job(id).worker_restarts(), 1u);
}

// Two deaths within one recovery are two faults, whoever tells of them first.
TEST_F(ElasticEnds, EachDeathCountsOnceWhoeverTellsFirst) {
  spec::JobSpec spec = Sim::Elastic(1, 4);
  spec.restart.max = 2;
  Place(spec, 4);
  sim.RunAll(id);
  sim.Finish(Seat(3), "ABORTED", "", 9);
  for (int seat = 0; seat < 3; ++seat) sim.Endpoint(Seat(seat), 1, "rank 3 is gone");
  EXPECT_EQ(gang().faults_in_row(), 1u);
  sim.Endpoint(Seat(0), 2, "rank 2 is gone");
  EXPECT_EQ(gang().faults_in_row(), 2u);
  sim.Finish(Seat(2), "ABORTED", "", 9);
  EXPECT_EQ(gang().faults_in_row(), 2u);
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
}

// Its order to meet would be lost.
TEST_F(ElasticEnds, NoGroupIsFormedBeforeAllItsWorkersHaveComeBackToANewCoordinator) {
  Start(1, 3);
  sim.Finish(Seat(0), "ABORTED", "", 9);
  sim.Endpoint(Seat(1), 1, "rank 0 is gone");
  sim.Restart();
  sim.Hello("w2", 1, "i1", {Seat(2)});
  sim.Endpoint(Seat(2), 1, "rank 0 is gone");
  EXPECT_TRUE(gang().forming());
  sim.Hello("w1", 1, "i1", {Seat(1)});
  EXPECT_FALSE(gang().forming());
  std::vector<std::string> told;
  for (const auto& [worker, group] : sim.out.groups) told.push_back(group.task_id());
  EXPECT_THAT(told, testing::UnorderedElementsAre(Seat(1), Seat(2)));
}

}  // namespace
}  // namespace lepton::scheduler
