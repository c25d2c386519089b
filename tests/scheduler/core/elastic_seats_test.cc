// Seats that join an elastic gang, at its start and later, and those that do not come.
#include <gmock/gmock.h>

#include "scheduler/core/elastic.h"
#include "tests/scheduler/core/sim.h"

namespace lepton::scheduler {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class ElasticSeats : public GangTest {};

TEST_F(ElasticSeats, ASeatThatNeverComesIsGivenUpAMinuteAfterTheLastSignOfLife) {
  Start(1, 2, 3);
  sim.Hello("w2");
  ASSERT_THAT(sim.out.starts, SizeIs(1));
  sim.now += 30'000;
  sim.Progress(Seat(0), 8);
  sim.Pass(59'999);
  EXPECT_EQ(gang().tasks(2).state(), TASK_PLACED);
  sim.Pass(1);
  EXPECT_EQ(gang().tasks(2).state(), TASK_LOST);
}

// NCCL takes no two ranks on one GPU: a worker's further slots are of no use to such a gang.
TEST_F(ElasticSeats, NcclsGangsHaveNoMoreSeatsOnAWorkerThanItHasGpus) {
  sim.Hello("w0", 8, "i1", {}, "", 2);
  spec::JobSpec spec = Sim::Elastic(1, 8);
  spec.resources.device = "cuda";
  spec.collectives = "nccl";
  id = sim.Submit(spec);
  EXPECT_EQ(gang().tasks_size(), 2);
  sim.RunAll(id);
  sim.Progress(Seat(0), 7);
  sim.Pass(600'000);
  EXPECT_EQ(gang().tasks_size(), 2);
  sim.Finish(Seat(1), "ABORTED", "", 9);
  ASSERT_EQ(gang().tasks_size(), 3) << "the GPU is free again";
  sim.Finish(Seat(2), "ABORTED", "", 9);
  sim.Hello("w1", 8, "i1", {}, "", 3);
  EXPECT_EQ(gang().tasks_size(), 6);
}

TEST_F(ElasticSeats, BelowItsLeastAReplacementIsAMemberFromTheStart) {
  Start(3, 3);
  sim.Finish(Seat(1), "ABORTED", "", 9);
  ASSERT_THAT(sim.out.starts, SizeIs(1)) << "the slot is free again";
  EXPECT_EQ(sim.out.starts[0].second.task_id(), Seat(3));
  EXPECT_TRUE(sim.out.starts[0].second.joins());
  EXPECT_EQ(sim.out.starts[0].second.resume_checkpoint(), "");
  EXPECT_THAT(Members(), ElementsAre(0, 2, 3));
  sim.Endpoint(Seat(0), 1);
  sim.Endpoint(Seat(2), 1);
  EXPECT_THAT(Told(), IsEmpty());
  sim.Run(Seat(3));
  EXPECT_THAT(Told(), SizeIs(3));
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
}

TEST_F(ElasticSeats, ASeatJoinsAtAStepBoundaryOnceItListens) {
  Start(1, 2, 3);
  sim.Hello("w2");
  ASSERT_THAT(sim.out.starts, SizeIs(1));
  EXPECT_TRUE(sim.out.starts[0].second.joins());
  EXPECT_THAT(Members(), ElementsAre(0, 1));
  sim.Started(Seat(2));
  EXPECT_THAT(Told(), IsEmpty()) << "nobody waits for its start";
  sim.Endpoint(Seat(2));
  EXPECT_THAT(Told(), ElementsAre(Seat(0) + " leave2", Seat(1) + " leave2"));
  EXPECT_FALSE(sim.out.groups[0].second.at_once());
  sim.Endpoint(Seat(0), 1);
  sim.Endpoint(Seat(1), 1);
  EXPECT_THAT(Told(), ElementsAre(Seat(0) + " join2", Seat(1) + " join2", Seat(2) + " join2"));
  sim.Recovered(Seat(0), 30);
  EXPECT_EQ(sim.job(id).recoveries(0).reason_code(), "RANK_JOINS");
  EXPECT_EQ(gang().faults_in_row(), 0u);
}

// The only rank that has the state is drained while a joiner waits for it, before they are a group
// or before they have met: it meets the joiner first.
TEST_F(ElasticSeats, WhoAloneHasTheStateIsDrainedOnceItMeetsTheJoiner) {
  for (const bool formed : {false, true}) {
    SCOPED_TRACE(formed ? "drained behind the list" : "drained before it");
    sim = Sim();
    Start(1, 1, 2);
    sim.Hello("w1");
    sim.Run(Seat(1));
    ASSERT_THAT(Told(), ElementsAre(Seat(0) + " leave2"));
    if (formed) {
      sim.Endpoint(Seat(0), 1, "rank 1 joins");
      ASSERT_THAT(Told(), ElementsAre(Seat(0) + " join2", Seat(1) + " join2"));
      sim.On(DrainWorker{WorkerId("w0"), "maintenance"});
    } else {
      sim.On(DrainWorker{WorkerId("w0"), "maintenance"});
      EXPECT_THAT(sim.out.stops, IsEmpty()) << "outside of a group it would go";
      sim.Hello("w0", 1, "i1", {Seat(0)});
      EXPECT_THAT(sim.out.stops, IsEmpty());
      EXPECT_THAT(Members(), ElementsAre(0, 1));
      sim.Endpoint(Seat(0), 1, "rank 1 joins");
      ASSERT_THAT(Told(), ElementsAre(Seat(0) + " join2", Seat(1) + " join2"));
    }
    ASSERT_THAT(sim.out.stops, SizeIs(1));
    EXPECT_EQ(sim.out.stops[0].second.task_id(), Seat(0));
    EXPECT_TRUE(sim.out.stops[0].second.alone());
    sim.Recovered(Seat(0), 8);
    sim.Finish(Seat(0), "CANCELLED", "left the gang after step 8");
    EXPECT_THAT(Members(), ElementsAre(1));
    sim.Endpoint(Seat(1), 2, "1 of 2 ranks left after step 8");
    EXPECT_THAT(Told(), ElementsAre(Seat(1) + " join3"));
    EXPECT_EQ(sim.StateOf(id), "RUNNING");
    EXPECT_EQ(sim.job(id).attempt(), 1u);
  }
}

// Nobody is there to take the state yet: it is written, and the job goes on from it.
TEST_F(ElasticSeats, WhoAloneHasTheStateIsNotKeptForOneThatStartsStill) {
  Start(2, 2);
  sim.Finish(Seat(1), "ABORTED", "", 9);
  ASSERT_THAT(Members(), ElementsAre(0, 2)) << "a new seat, which has not started";
  sim.On(DrainWorker{WorkerId("w0"), "maintenance"});
  EXPECT_EQ(sim.StateOf(id), "RECOVERING");
}

TEST_F(ElasticSeats, AJoinerThatFailsHurtsNobodyAndIsTriedAgainLater) {
  Start(1, 2, 3);
  sim.Hello("w2");
  sim.Finish(Seat(2), "DATA_LOSS", "its disk is broken");
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
  EXPECT_THAT(Told(), IsEmpty());
  EXPECT_THAT(sim.out.starts, IsEmpty());
  sim.Pass(1'000);
  EXPECT_NE(sim.state().FindTask(Seat(3)), nullptr);
}

TEST_F(ElasticSeats, AJobThatWaitsHasTheFreeSlotBeforeASeat) {
  Start(1, 2, 3);
  const std::string other = sim.Submit(Sim::Train(2, 2));
  EXPECT_EQ(sim.StateOf(other), "QUEUED");
  sim.Hello("w2");
  EXPECT_THAT(sim.out.starts, IsEmpty()) << "it would wait for ever for its second slot";
  sim.Hello("w3");
  EXPECT_EQ(sim.StateOf(other), "STARTING");
}

TEST_F(ElasticSeats, AJoinerWhoseWorkerRefusesItIsTriedAgainHoweverOften) {
  Start(1, 2, 3);
  sim.Hello("w2");
  for (int seat = 2; seat < 12; ++seat) {
    ASSERT_THAT(sim.out.starts, SizeIs(1)) << seat;
    wire::TaskReport report;
    report.mutable_finished()->set_code("RESOURCE_EXHAUSTED");
    report.mutable_finished()->set_refused(true);
    sim.Report(Seat(seat), std::move(report));
    EXPECT_THAT(sim.out.starts, IsEmpty());
    sim.Pass(60'000);
  }
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
}

TEST_F(ElasticSeats, AWorkerWithoutAFailureIsTriedBeforeOneWhereAJoinerDied) {
  Start(1, 2, 3);
  sim.Hello("w2");
  sim.Finish(Seat(2), "ABORTED", "", 9);
  EXPECT_THAT(sim.out.starts, IsEmpty());
  sim.Hello("w9");
  ASSERT_THAT(sim.out.starts, SizeIs(1)) << "nothing has failed there";
  EXPECT_EQ(sim.out.starts[0].first, "w9");
  sim.Finish(Seat(3), "ABORTED", "", 9);
  sim.Pass(10'000);
  EXPECT_NE(sim.state().FindTask(Seat(4)), nullptr) << "if no other has a place, there again";
}

TEST_F(ElasticSeats, NoRowOfFailuresMakesItGiveUpJoiners) {
  Start(1, 2, 3);
  sim.Hello("w2");
  for (int seat = 2; seat < 12; ++seat) {
    ASSERT_NE(sim.state().FindTask(Seat(seat)), nullptr) << seat;
    sim.Finish(Seat(seat), "ABORTED", "", 9);
    EXPECT_THAT(sim.out.starts, IsEmpty());
    sim.Pass(seat < 7 ? 30'000 : 300'000);
  }
  sim.Finish(Seat(12), "ABORTED", "", 9);
  sim.Pass(60'000);
  EXPECT_EQ(sim.state().FindTask(Seat(13)), nullptr) << "but not every half a minute";
  sim.Hello("w9");
  ASSERT_THAT(sim.out.starts, SizeIs(1));
  EXPECT_EQ(sim.out.starts[0].first, "w9");
}

TEST_F(ElasticSeats, ADeathWhileOneJoinsIsTimedFromTheDeath) {
  Start(1, 2, 3);
  sim.Hello("w2");
  sim.Started(Seat(2));
  sim.Endpoint(Seat(2));
  sim.Endpoint(Seat(0), 1);
  sim.now += 1'500;
  sim.Finish(Seat(1), "ABORTED", "", 9);
  EXPECT_THAT(Members(), ElementsAre(0, 2));
  sim.now += 5;
  sim.Recovered(Seat(0), 8);
  ASSERT_THAT(sim.job(id).recoveries(), SizeIs(1));
  const Recovery& ledger = sim.job(id).recoveries(0);
  EXPECT_NE(ledger.reason_code(), "RANK_JOINS");
  EXPECT_LT(ledger.total(), 100);
  EXPECT_LT(ledger.agree(), 100);
}

TEST_F(ElasticSeats, AMemberWhoseWorkerRefusesItIsDoneWithout) {
  Place(Sim::Elastic(1, 3), 3);
  wire::TaskReport report;
  report.mutable_finished()->set_code("UNAVAILABLE");
  report.mutable_finished()->set_refused(true);
  sim.Report(Seat(1), std::move(report));
  EXPECT_THAT(Members(), ElementsAre(0, 2));
  EXPECT_EQ(gang().faults_in_row(), 0u);
}

TEST_F(ElasticSeats, AMemberIsNotPlacedAtOnceWhereOneWasRefused) {
  Start(2, 2);
  sim.Finish(Seat(1), "ABORTED", "", 9);
  ASSERT_THAT(sim.out.starts, SizeIs(1));
  wire::TaskReport report;
  report.mutable_finished()->set_code("UNAVAILABLE");
  report.mutable_finished()->set_refused(true);
  sim.Report(Seat(2), std::move(report));
  EXPECT_THAT(sim.out.starts, IsEmpty());
  EXPECT_EQ(sim.StateOf(id), "RECOVERING");
}

TEST_F(ElasticSeats, ARefusedMemberDoesNotHideHowTheOthersEnded) {
  Place(Sim::Elastic(1, 2), 2);
  wire::TaskReport report;
  report.mutable_finished()->set_code("UNAVAILABLE");
  report.mutable_finished()->set_refused(true);
  sim.Report(Seat(0), std::move(report));
  ASSERT_THAT(Members(), ElementsAre(1));
  sim.Finish(Seat(1), "FAILED_PRECONDITION", "the loss is nan");
  EXPECT_EQ(sim.StateOf(id), "FAILED");
  EXPECT_THAT(sim.job(id).error(), HasSubstr("the loss is nan"));
}

TEST_F(ElasticSeats, NobodyJoinsWhenTheWorkIsAllButDone) {
  Start(1, 2, 3);
  sim.Hello("w2");
  sim.Finish(Seat(1), "OK");
  sim.Run(Seat(2));
  EXPECT_EQ(gang().epoch(), 1u);
  EXPECT_THAT(Told(), IsEmpty());
}
}  // namespace
}  // namespace lepton::scheduler
