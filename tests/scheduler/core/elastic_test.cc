// Gangs that outlive their ranks: epochs, losses, leaves, joins, hangs, and the coordinator's death
// in the middle of them.
#include "scheduler/core/elastic.h"

#include <gmock/gmock.h>

#include "tests/scheduler/core/sim.h"

namespace lepton::scheduler {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::UnorderedElementsAre;

class ElasticGang : public GangTest {};

TEST_F(ElasticGang, MeetsInEpochOneOnceEveryRankListens) {
  Place(Sim::Elastic(1, 3), 3);
  ASSERT_THAT(sim.out.starts, SizeIs(3));
  EXPECT_TRUE(sim.out.starts[0].second.elastic());
  EXPECT_FALSE(sim.out.starts[0].second.joins());
  EXPECT_EQ(sim.out.starts[0].second.hang_ms(), 1'000u) << "half the budget";
  EXPECT_EQ(sim.out.starts[0].second.leave_grace_ms(), 2'000u) << "and all of it to leave in";
  for (int rank = 0; rank < 3; ++rank) sim.Started(Seat(rank));
  sim.Endpoint(Seat(2));
  sim.Endpoint(Seat(0));
  EXPECT_THAT(Told(), IsEmpty());
  sim.Endpoint(Seat(1));
  EXPECT_THAT(Told(), ElementsAre(Seat(0) + " join1", Seat(1) + " join1", Seat(2) + " join1"));
  EXPECT_EQ(sim.out.groups[1].second.rank(), 1u);
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
}

TEST_F(ElasticGang, ADeadRankCostsNoRestart) {
  Start(1, 3);
  sim.Finish(Seat(1), "ABORTED", "", 9);
  EXPECT_THAT(Members(), ElementsAre(0, 2));
  EXPECT_EQ(gang().epoch(), 2u);
  EXPECT_THAT(Told(), ElementsAre(Seat(0) + " leave2", Seat(2) + " leave2"));
  EXPECT_TRUE(sim.out.groups[0].second.at_once());
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
  sim.now += 3;
  sim.Endpoint(Seat(0), 1, "rank 1 died");
  EXPECT_THAT(Told(), IsEmpty());
  sim.now += 4;
  sim.Endpoint(Seat(2), 1, "rank 1 died");
  EXPECT_THAT(Told(), ElementsAre(Seat(0) + " join2", Seat(2) + " join2"));
  EXPECT_EQ(sim.out.groups[1].second.rank(), 1u) << "ranks are counted anew";
  EXPECT_THAT(sim.out.groups[1].second.members(), SizeIs(2));
  sim.now += 10;
  sim.Recovered(Seat(0), 8);
  const Job& job = sim.job(id);
  EXPECT_EQ(job.attempt(), 1u);
  EXPECT_EQ(job.worker_restarts(), 0u);
  ASSERT_THAT(job.recoveries(), SizeIs(1));
  const Recovery& ledger = job.recoveries(0);
  EXPECT_EQ(ledger.reason_code(), "RANK_LOST");
  EXPECT_THAT(ledger.cause(), HasSubstr("rank 1 on worker w1: killed by signal 9"));
  EXPECT_EQ(ledger.step(), 8u);
  EXPECT_EQ(ledger.ranks(), 2u);
  EXPECT_EQ(ledger.detect(), 3);
  EXPECT_EQ(ledger.agree(), 4);
  EXPECT_EQ(ledger.rebuild(), 2);
  EXPECT_EQ(ledger.restore(), 3);
  EXPECT_EQ(ledger.first_commit(), 4);
  EXPECT_EQ(ledger.total(), 17);
}

// Each epoch has a communicator of its own, whatever moves the bytes.
TEST_F(ElasticGang, ADeathAndAJoinInAGangOnEachBackEnd) {
  for (const char* collectives : {"auto", "native", "nccl"}) {
    const std::string told = collectives;
    sim = Sim();
    for (const char* worker : {"w0", "w1", "w2"}) sim.Hello(worker);
    spec::JobSpec spec = Sim::Elastic(1, 3);
    spec.collectives = collectives;
    id = sim.Submit(spec);
    ASSERT_THAT(sim.out.starts, SizeIs(3)) << told;
    EXPECT_TRUE(sim.out.starts[0].second.elastic()) << told;
    sim.RunAll(id);
    sim.Progress(Seat(0), 7);
    sim.Lose("w1");
    EXPECT_EQ(sim.StateOf(id), "RUNNING") << told;
    EXPECT_THAT(Told(), ElementsAre(Seat(0) + " leave2", Seat(2) + " leave2")) << told;
    sim.Endpoint(Seat(0), 1, "rank 1 died");
    sim.Endpoint(Seat(2), 1, "rank 1 died");
    EXPECT_THAT(Told(), ElementsAre(Seat(0) + " join2", Seat(2) + " join2")) << told;
    sim.Recovered(Seat(0), 8);
    EXPECT_EQ(sim.job(id).worker_restarts(), 0u) << told;
    sim.Hello("w3");
    ASSERT_THAT(sim.out.starts, SizeIs(1)) << told;
    EXPECT_TRUE(sim.out.starts[0].second.joins()) << told;
    EXPECT_THAT(sim.out.starts[0].second.probe(), SizeIs(2)) << told;
  }
}

TEST_F(ElasticGang, ASurvivorThatTellsFirstDoesNotHideWhoDied) {
  Start(1, 3);
  sim.Endpoint(Seat(0), 1, "rank 1 is gone");
  EXPECT_EQ(gang().epoch(), 2u);
  EXPECT_THAT(Members(), ElementsAre(0, 1, 2)) << "nobody is known to be dead";
  sim.Finish(Seat(1), "ABORTED", "", 9);
  EXPECT_THAT(Members(), ElementsAre(0, 2));
  EXPECT_EQ(gang().faults_in_row(), 1u) << "one fault, told twice";
  sim.Endpoint(Seat(2), 1, "rank 1 is gone");
  EXPECT_THAT(Told(), ElementsAre(Seat(0) + " join3", Seat(2) + " join3"));
  sim.Recovered(Seat(0), 8);
  EXPECT_EQ(sim.job(id).recoveries(0).reason_code(), "RANK_LOST");
  EXPECT_EQ(gang().faults_in_row(), 0u);
}

// Behind the last step of a training ranks may measure for long: who dies there again and again is
// given up as elsewhere.
TEST_F(ElasticGang, ARecoveryThatGetsNoFurtherDoesNotForgiveFaults) {
  Start(1, 3);
  sim.Finish(Seat(1), "INTERNAL", "", 9);
  sim.Endpoint(Seat(0), 1, "rank 1 is gone");
  sim.Endpoint(Seat(2), 1, "rank 1 is gone");
  sim.Recovered(Seat(0), 8);
  EXPECT_EQ(gang().faults_in_row(), 0u);
  sim.Finish(Seat(2), "INTERNAL", "", 9);
  sim.Endpoint(Seat(0), gang().epoch() - 1, "rank 1 is gone");
  sim.Recovered(Seat(0), 8);
  EXPECT_EQ(gang().faults_in_row(), 1u) << "step 8 was there before";
}

TEST_F(ElasticGang, TheDeathOfTheLeaderMakesAnotherRankLead) {
  Start(1, 2);
  sim.Finish(Seat(0), "ABORTED", "", 9);
  sim.Endpoint(Seat(1), 1);
  sim.Recovered(Seat(1), 9);
  sim.Progress(Seat(1), 20);
  EXPECT_EQ(sim.job(id).progress().step(), 20u);
  sim.Finish(Seat(1), "OK", "", 0, {}, "m1");
  sim.StopAll();  // the seat that took the dead one's slot
  EXPECT_EQ(sim.StateOf(id), "SUCCEEDED");
  EXPECT_EQ(sim.job(id).result().model_manifest(), "m1");
}

TEST_F(ElasticGang, BelowItsLeastWithoutAPlaceItStartsAgainFromItsCheckpoint) {
  Start(2, 2);
  sim.Lose("w1");
  EXPECT_EQ(sim.StateOf(id), "RECOVERING");
  sim.StopAll();
  EXPECT_EQ(sim.job(id).worker_restarts(), 1u);
}

TEST_F(ElasticGang, AllDeadMeansTheCheckpoint) {
  Start(1, 2);
  sim.Checkpoint(Seat(0), 5, "c5");
  sim.Finish(Seat(0), "ABORTED", "", 9);
  sim.Finish(Seat(1), "ABORTED", "", 9);
  EXPECT_EQ(sim.StateOf(id), "RECOVERING") << "the seat that was to join has nothing";
  sim.StopAll();
  sim.Pass(1'000);
  ASSERT_THAT(sim.out.starts, SizeIs(2));
  EXPECT_EQ(sim.out.starts[0].second.resume_checkpoint(), "c5");
}

TEST_F(ElasticGang, ADrainedWorkersRankLeavesAndTheOthersGoOn) {
  Start(1, 3);
  sim.On(DrainWorker{WorkerId("w2"), "maintenance"});
  ASSERT_THAT(sim.out.stops, SizeIs(1));
  EXPECT_EQ(sim.out.stops[0].second.task_id(), Seat(2));
  EXPECT_TRUE(sim.out.stops[0].second.alone());
  sim.Endpoint(Seat(0), 1, "1 of 3 ranks left");
  EXPECT_THAT(Members(), ElementsAre(0, 1));
  sim.Finish(Seat(2), "CANCELLED", "left");
  sim.Endpoint(Seat(1), 1, "1 of 3 ranks left");
  EXPECT_THAT(Told(), ElementsAre(Seat(0) + " join2", Seat(1) + " join2"));
  EXPECT_EQ(gang().faults_in_row(), 0u);
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
}

TEST_F(ElasticGang, AMemberThatDoesNotAnswerWithinTheBudgetIsKilled) {
  Start(1, 3);
  sim.Endpoint(Seat(0), 1, "no answer in time from rank 2");
  sim.Endpoint(Seat(1), 1, "no answer in time from rank 2");
  EXPECT_THAT(Members(), SizeIs(3));
  sim.Pass(1'999);
  EXPECT_THAT(Members(), SizeIs(3));
  sim.Pass(1);
  ASSERT_THAT(sim.out.stops, SizeIs(1));
  EXPECT_EQ(sim.out.stops[0].second.task_id(), Seat(2));
  EXPECT_EQ(sim.out.stops[0].second.grace_ms(), 0u);
  EXPECT_THAT(Told(), ElementsAre(Seat(0) + " join3", Seat(1) + " join3"));
  sim.Recovered(Seat(0), 8);
  EXPECT_EQ(sim.job(id).recoveries(0).reason_code(), "HUNG");
}

TEST_F(ElasticGang, AMemberThatComputesStillIsWaitedForAndNamed) {
  Start(1, 3);
  sim.Finish(Seat(1), "ABORTED", "", 9);
  sim.Endpoint(Seat(0), 1, "rank 1 died");
  for (int i = 0; i < 5; ++i) {
    sim.Pass(1'000);
    wire::TaskReport report;
    report.mutable_busy()->set_epoch(2);
    sim.Report(Seat(2), std::move(report));
    EXPECT_THAT(sim.out.stops, IsEmpty());
  }
  std::string told;
  for (const Event& event : sim.job(id).events()) {
    if (event.reason_code() == "SLOW") told += event.cause();
  }
  EXPECT_EQ(told,
            "rank 2 on worker w2 computes still, and cannot leave its group: the others wait");
  // It says no more: now it hangs.
  sim.Pass(1'999);
  EXPECT_THAT(Members(), ElementsAre(0, 2));
  sim.Pass(1);
  ASSERT_THAT(sim.out.stops, SizeIs(1));
  EXPECT_EQ(sim.out.stops[0].second.task_id(), Seat(2));
  EXPECT_THAT(Members(), ElementsAre(0));
}

TEST_F(ElasticGang, AStragglerIsNamedByThoseThatWait) {
  Start(1, 3);
  wire::TaskReport report;
  report.mutable_straggler()->set_epoch(1);
  report.mutable_straggler()->set_seat(2);
  report.mutable_straggler()->set_waited_ms(2'100);
  report.mutable_straggler()->set_computing(true);
  sim.Report(Seat(0), std::move(report));
  ASSERT_THAT(sim.out.events, SizeIs(1));
  EXPECT_EQ(sim.out.events[0].reason_code(), "SLOW");
  EXPECT_EQ(sim.out.events[0].cause(),
            "rank 2 on worker w2 is 2.1 s behind its peers after step 7: it computes still, and "
            "they wait");
  EXPECT_EQ(gang().epoch(), 1u);
}

TEST_F(ElasticGang, ASlowLinkIsNamedByItsEndsAndByWhatOthersGive) {
  Start(1, 3);
  for (const bool every : {false, true}) {
    wire::TaskReport report;
    report.mutable_straggler()->set_epoch(1);
    report.mutable_straggler()->set_seat(2);
    report.mutable_straggler()->mutable_link()->set_rate(374'000);
    report.mutable_straggler()->mutable_link()->set_others(112'340'000);
    report.mutable_straggler()->mutable_link()->set_every(every);
    sim.Report(Seat(1), std::move(report));
    ASSERT_THAT(sim.out.events, SizeIs(1));
    EXPECT_EQ(sim.out.events[0].reason_code(), "SLOW");
    EXPECT_EQ(sim.out.events[0].cause(),
              every ? "all links of rank 2 on worker w2 are slow: the one from rank 1 on worker w1 "
                      "gives 0.374 MB/s, those among others 112.3 MB/s"
                    : "the link from rank 1 on worker w1 to rank 2 on worker w2 is slow: it gives "
                      "0.374 MB/s, that rank's others 112.3 MB/s");
  }
  EXPECT_EQ(gang().epoch(), 1u);
}

TEST_F(ElasticGang, AGroupThatLostBytesOnTheWayIsCalledCorruptAndMeetsAgain) {
  Start(1, 2);
  wire::TaskReport report;
  report.mutable_endpoint()->set_address("fresh");
  report.mutable_endpoint()->set_left_epoch(1);
  report.mutable_endpoint()->set_left_wall_ms(sim.now);
  report.mutable_endpoint()->set_cause(
      "from rank 1: corrupt bytes: a frame of 7 has another checksum");
  report.mutable_endpoint()->set_corrupt(true);
  sim.Report(Seat(0), std::move(report));
  EXPECT_EQ(gang().faults_in_row(), 1u);
  sim.Endpoint(Seat(1), 1);
  sim.Recovered(Seat(0), 8);
  EXPECT_EQ(sim.job(id).recoveries(0).reason_code(), "CORRUPT");
  EXPECT_THAT(Members(), ElementsAre(0, 1));
}

TEST_F(ElasticGang, CorruptionIsNamedAlsoWhereALeaverWasFirstToTell) {
  Start(1, 3);
  sim.Endpoint(Seat(2), 1, "it leaves");
  EXPECT_EQ(sim.out.events.back().reason_code(), "GROUP_BROKEN");
  wire::TaskReport report;
  report.mutable_endpoint()->set_address("fresh");
  report.mutable_endpoint()->set_left_epoch(1);
  report.mutable_endpoint()->set_left_wall_ms(sim.now);
  report.mutable_endpoint()->set_cause("from rank 1: corrupt bytes");
  report.mutable_endpoint()->set_corrupt(true);
  sim.Report(Seat(0), report);
  ASSERT_THAT(sim.out.events, Not(IsEmpty()));
  EXPECT_EQ(sim.out.events[0].reason_code(), "CORRUPT");
  EXPECT_EQ(gang().epoch(), 2u) << "the same fault";
  sim.Report(Seat(1), report);
  for (const Event& event : sim.out.events) EXPECT_NE(event.reason_code(), "CORRUPT") << "known";
  sim.Recovered(Seat(0), 8);
  EXPECT_EQ(sim.job(id).recoveries(0).reason_code(), "CORRUPT");
}

TEST_F(ElasticGang, ARankWithoutRoomForItsCheckpointIsGoneOnWithout) {
  Start(1, 3);
  sim.Finish(Seat(0), "RESOURCE_EXHAUSTED", "checkpoint of step 9: No space left on device");
  EXPECT_THAT(Members(), ElementsAre(1, 2));
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
  sim.Endpoint(Seat(1), 1);
  sim.Endpoint(Seat(2), 1);
  sim.Recovered(Seat(1), 9);
  EXPECT_THAT(sim.job(id).recoveries(0).cause(), HasSubstr("No space left on device"));
}

TEST_F(ElasticGang, ALastRankWithoutRoomStartsAgainFromTheCheckpoint) {
  Start(1, 1, 2);
  sim.Checkpoint(Seat(0), 5, "c5");
  sim.Finish(Seat(0), "RESOURCE_EXHAUSTED", "No space left on device");
  EXPECT_EQ(sim.StateOf(id), "RECOVERING");
}

TEST_F(ElasticGang, ARankThatItsAgentKilledForItsSilenceIsCalledHung) {
  Start(1, 2);
  wire::TaskReport report;
  report.set_wall_ms(sim.now);
  report.mutable_finished()->set_code("ABORTED");
  report.mutable_finished()->set_message("hung: no sign of life for 1000 ms: killed");
  report.mutable_finished()->set_signal(9);
  report.mutable_finished()->set_silent_since_ms(sim.now - 1'000);
  sim.Report(Seat(1), std::move(report));
  sim.Endpoint(Seat(0), 1);
  sim.Recovered(Seat(0), 8);
  const Recovery& ledger = sim.job(id).recoveries(0);
  EXPECT_EQ(ledger.reason_code(), "HUNG");
  EXPECT_EQ(ledger.detect(), 1'000) << "from its last pulse";
  EXPECT_THAT(ledger.cause(), HasSubstr("rank 1 on worker w1: hung"));
}

void FinishDiverged(Sim& sim, const std::string& task, uint32_t agreeing) {
  wire::TaskReport report;
  report.mutable_finished()->set_code("DATA_LOSS");
  report.mutable_finished()->set_message("its parameters are not those of its peers");
  report.mutable_finished()->mutable_diverged()->set_step(7);
  report.mutable_finished()->mutable_diverged()->set_agreeing(agreeing);
  sim.Report(task, std::move(report));
}

TEST_F(ElasticGang, ARankThatDivergedIsLeftBehindAndNamed) {
  Start(1, 3);
  sim.Endpoint(Seat(0), 1, "rank 1 of 3 holds other parameters");
  FinishDiverged(sim, Seat(1), 2);
  EXPECT_THAT(Members(), ElementsAre(0, 2));
  sim.Endpoint(Seat(2), 1, "rank 1 of 3 holds other parameters");
  sim.Recovered(Seat(0), 8);
  const Recovery& ledger = sim.job(id).recoveries(0);
  EXPECT_EQ(ledger.reason_code(), "DIVERGED");
  EXPECT_THAT(ledger.cause(), HasSubstr("rank 1 on worker w1: DATA_LOSS: its parameters"));
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
}

TEST_F(ElasticGang, RanksThatDivergedWithoutAMajorityFailTheJob) {
  Start(1, 2);
  FinishDiverged(sim, Seat(1), 0);
  FinishDiverged(sim, Seat(0), 0);
  EXPECT_EQ(sim.StateOf(id), "FAILED");
  EXPECT_EQ(sim.job(id).reason_code(), "DIVERGED");
  EXPECT_EQ(sim.job(id).error_code(), "DATA_LOSS");
}

TEST_F(ElasticGang, TheSameFaultAgainAndAgainEndsIt) {
  spec::JobSpec spec = Sim::Elastic(1, 4);
  spec.restart.max = 2;
  Place(spec, 4);
  sim.RunAll(id);
  sim.Finish(Seat(3), "ABORTED", "", 9);
  sim.Finish(Seat(2), "ABORTED", "", 9);
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
  sim.Finish(Seat(1), "ABORTED", "", 9);
  EXPECT_EQ(sim.StateOf(id), "RECOVERING") << "nothing was committed between three faults";
}

TEST_F(ElasticGang, ItsOrdersAreRepeatedAfterTheCoordinatorsDeath) {
  Start(1, 3);
  sim.Finish(Seat(1), "ABORTED", "", 9);
  sim.Restart();
  sim.Hello("w0", 1, "i1", {Seat(0)});
  EXPECT_THAT(Told(), ElementsAre(Seat(0) + " leave2"));
  sim.Endpoint(Seat(0), 1);
  sim.Restart();
  sim.Hello("w0", 1, "i1", {Seat(0)});
  sim.Hello("w2", 1, "i1", {Seat(2)});
  sim.Endpoint(Seat(2), 1);
  EXPECT_THAT(Told(), ElementsAre(Seat(0) + " join2", Seat(2) + " join2"));
  sim.Restart();
  sim.Hello("w0", 1, "i1", {Seat(0)});
  EXPECT_THAT(Told(), ElementsAre(Seat(0) + " join2")) << "it may not have arrived";
}

// Found by protocol_model_test.cc: rank 1 waited for rank 2 for ever.
TEST_F(ElasticGang, AGroupThatFormsDoesNotWaitForARankThatIsThrough) {
  Start(1, 3);
  sim.Lose("w0");  // with its word that the work is done
  sim.Finish(Seat(2), "OK");
  sim.Endpoint(Seat(1), 1, "rank 0 is gone");
  EXPECT_THAT(Told(), ElementsAre(Seat(1) + " join3"));
  EXPECT_EQ(gang().faults_in_row(), 1u);
  sim.Finish(Seat(1), "OK", "", 0, {}, "m1");
  sim.StopAll();
  EXPECT_EQ(sim.StateOf(id), "SUCCEEDED");
}

TEST_F(ElasticGang, WhoWaitsForAGroupGoesOnceTheLeaderHasFinished) {
  Start(1, 3);
  sim.Endpoint(Seat(2), 1, "rank 0 has left");
  sim.Finish(Seat(1), "OK");
  sim.Finish(Seat(0), "OK", "", 0, {}, "m1");
  ASSERT_FALSE(sim.out.stops.empty());
  EXPECT_EQ(sim.out.stops[0].second.task_id(), Seat(2));
  sim.StopAll();
  EXPECT_EQ(sim.StateOf(id), "SUCCEEDED");
}

}  // namespace
}  // namespace lepton::scheduler
