// Ranks that are told to go while each of them holds a part of the training state (parallel.zero):
// members until they have handed it over, and all together with a checkpoint.
#include <gmock/gmock.h>

#include "scheduler/core/elastic.h"
#include "tests/scheduler/core/sim.h"

namespace lepton::scheduler {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using testing::UnorderedElementsAre;

// A gang of `ranks` on as many workers of one slot each, that trains.
class SlicedGang : public GangTest {
 protected:
  void Start(int min_workers, int ranks, int zero = 1) {
    spec::JobSpec spec = Sim::Elastic(min_workers, ranks);
    spec.elastic.recovery_budget = std::chrono::seconds(8);
    spec.parallel.zero = zero;
    GangTest::Start(spec, ranks);
  }
  void Drain(const std::string& worker) { sim.On(DrainWorker{WorkerId(worker), "maintenance"}); }
  // Out of its group, which ended since these seats left it.
  void Parted(int seat, const std::vector<uint32_t>& left) {
    wire::TaskReport report;
    wire::TaskEndpoint& endpoint = *report.mutable_endpoint();
    endpoint.set_address("anew");
    endpoint.set_left_epoch(sim.state().FindTask(Seat(seat))->group_epoch());
    endpoint.set_planned(true);
    endpoint.set_cause("ranks left after step 7");
    endpoint.mutable_left()->Add(left.begin(), left.end());
    sim.Report(Seat(seat), std::move(report));
  }
  std::vector<std::string> ToldToLeave() const {
    std::vector<std::string> told;
    for (const auto& [worker, stop] : sim.out.stops) {
      EXPECT_TRUE(stop.alone()) << stop.task_id();
      told.push_back(stop.task_id() + (stop.at_once() ? " at once" : ""));
    }
    return told;
  }
  std::vector<std::string> Joining() const {
    std::vector<std::string> told;
    for (const auto& [worker, group] : sim.out.groups) {
      if (!group.members().empty()) told.push_back(group.task_id());
    }
    return told;
  }
};

TEST_F(SlicedGang, WhoIsDrainedIsAMemberUntilItHasLeft) {
  Start(1, 4);
  Drain("w0");
  EXPECT_THAT(ToldToLeave(), ElementsAre(Seat(0)));
  EXPECT_EQ(sim.out.stops[0].second.grace_ms(), 8'000u) << "the budget";
  sim.Finish(Seat(2), "ABORTED", "", 9);  // its buddy dies: it alone has what both held
  EXPECT_THAT(Members(), ElementsAre(0, 1, 3));
  for (const int seat : {0, 1}) sim.Endpoint(Seat(seat), 1, "rank 2 died");
  EXPECT_THAT(Joining(), IsEmpty());
  sim.Endpoint(Seat(3), 1, "rank 2 died");
  EXPECT_THAT(Joining(), ElementsAre(Seat(0), Seat(1), Seat(3)));
  Parted(1, {0});
  EXPECT_THAT(ToldToLeave(), ElementsAre(Seat(0) + " at once")) << "if it has not noticed";
  EXPECT_THAT(Members(), ElementsAre(1, 3));
  sim.Finish(Seat(0), "CANCELLED", "left the gang after step 7");
  EXPECT_THAT(Members(), ElementsAre(1, 3));
  Parted(3, {0});
  EXPECT_THAT(Joining(), ElementsAre(Seat(1), Seat(3)));
  EXPECT_EQ(gang().faults_in_row(), 1u) << "the death";
  EXPECT_EQ(sim.job(id).attempt(), 1u);
}

// One of those that stay was torn out of the hand-over, and so the epoch after it has the leaver,
// too, until somebody knows better.
TEST_F(SlicedGang, WhoHasHandedOverIsTakenOutOfAFormingEpoch) {
  Start(1, 4);
  sim.Endpoint(Seat(2), 1, "a peer is gone");
  EXPECT_THAT(Members(), ElementsAre(0, 1, 2, 3));
  Parted(1, {0});
  EXPECT_THAT(Members(), ElementsAre(1, 2, 3));
  sim.Endpoint(Seat(0), 1, "a peer is gone");
  sim.Finish(Seat(0), "CANCELLED", "told to leave the gang");
  Parted(3, {0});
  EXPECT_THAT(Joining(), ElementsAre(Seat(1), Seat(2), Seat(3)));
}

// The last one was torn out of it before it knew: it would wait for the others in vain.
TEST_F(SlicedGang, ACheckpointByAllIsTheEndOfAll) {
  Start(1, 3);
  sim.Endpoint(Seat(2), 1, "a peer is gone");
  sim.Checkpoint(Seat(0), 7, "c7");
  wire::TaskReport report;
  report.mutable_finished()->set_code("CANCELLED");
  report.mutable_finished()->set_saved(true);
  sim.Report(Seat(0), std::move(report));
  EXPECT_EQ(gang().state(), GANG_STOPPING);
  EXPECT_THAT(sim.out.stops, SizeIs(2));
}

TEST_F(SlicedGang, WithTheWholeStateOnEachRankItIsNoMemberAnyMore) {
  Start(1, 4, /*zero=*/0);
  Drain("w0");
  EXPECT_EQ(sim.out.stops[0].second.grace_ms(), 8'000u) << "the step in flight may be as long";
  sim.Finish(Seat(2), "ABORTED", "", 9);
  EXPECT_THAT(Members(), ElementsAre(1, 3));
}

// SIGTERM, of which the coordinator hears only in the end, is no fault of the gang.
TEST_F(SlicedGang, AGroupThatEndsAsPlannedIsNoFault) {
  Start(1, 4);
  Parted(1, {0});
  EXPECT_THAT(Members(), ElementsAre(1, 2, 3));
  EXPECT_EQ(gang().recovery().reason_code(), "RANK_LEAVES");
  sim.Finish(Seat(0), "CANCELLED", "left the gang after step 7");
  EXPECT_THAT(Members(), ElementsAre(1, 2, 3));
  EXPECT_EQ(gang().faults_in_row(), 0u);
}

// Not stopped, which would end it between two groups, too: all meet, and write.
TEST_F(SlicedGang, WhenAllAreDrainedTheyEndWithACheckpointAndTheJobMoves) {
  Start(1, 3);
  for (const std::string worker : {"w0", "w1"}) {
    Drain(worker);
    EXPECT_THAT(sim.out.stops, SizeIs(1));
  }
  Drain("w2");
  EXPECT_THAT(ToldToLeave(), ElementsAre(Seat(2)));
  EXPECT_TRUE(gang().winds_down());
  EXPECT_EQ(gang().state(), GANG_RUNNING);
  sim.Endpoint(Seat(1), 1, "a peer is gone");
  EXPECT_THAT(Members(), ElementsAre(0, 1, 2));
  for (const int seat : {0, 2}) sim.Endpoint(Seat(seat), 1, "a peer is gone");
  EXPECT_THAT(Joining(), SizeIs(3)) << "it still forms groups";
  sim.Checkpoint(Seat(0), 7, "c7");
  for (const int seat : {2, 0, 1}) sim.Finish(Seat(seat), "CANCELLED", "stopped after step 7");
  EXPECT_EQ(sim.job(id).worker_restarts() + sim.job(id).task_restarts(), 0u) << "it moves";
  sim.Hello("w3");
  sim.Pass(1);
  ASSERT_THAT(sim.Living(id), SizeIs(1));
  EXPECT_EQ(sim.state().FindGang(id + ".a2")->resume_checkpoint(), "c7");
}

TEST_F(SlicedGang, BelowItsLeastWithoutAPlaceAllAreToldToLeave) {
  Start(3, 3);
  Drain("w1");
  EXPECT_THAT(ToldToLeave(), UnorderedElementsAre(Seat(0), Seat(1), Seat(2)));
  EXPECT_TRUE(gang().winds_down());
}

TEST_F(SlicedGang, BelowItsLeastWithAPlaceElsewhereOnlyTheDrainedGoes) {
  Start(3, 3);
  sim.Hello("w3");
  Drain("w1");
  EXPECT_THAT(ToldToLeave(), ElementsAre(Seat(1)));
  // The seat on the further worker: it may be there before the drained one has gone.
  EXPECT_THAT(sim.Living(id), SizeIs(4));
  for (const int seat : {0, 2}) sim.Endpoint(Seat(seat), 1, "1 of 3 ranks left");
  sim.Finish(Seat(1), "CANCELLED", "left the gang after step 7");
  EXPECT_THAT(Members(), ElementsAre(0, 2, 3)) << "the seat that waits, and no other";
  EXPECT_FALSE(gang().winds_down());
  sim.Run(Seat(3));
  EXPECT_THAT(Joining(), SizeIs(3));
  EXPECT_EQ(sim.job(id).attempt(), 1u);
}

// None of the others has the state alone either.
TEST_F(SlicedGang, ADeathBelowItsLeastEndsWithTheOthersCheckpoint) {
  Start(3, 3);
  sim.Lose("w2");
  EXPECT_THAT(ToldToLeave(), UnorderedElementsAre(Seat(0), Seat(1)));
  EXPECT_THAT(Members(), ElementsAre(0, 1));
  for (const int seat : {0, 1}) sim.Endpoint(Seat(seat), 1, "rank 2 died");
  EXPECT_THAT(Joining(), ElementsAre(Seat(0), Seat(1)));
  sim.Checkpoint(Seat(0), 7, "c7");
  for (const int seat : {0, 1}) sim.Finish(Seat(seat), "CANCELLED", "stopped after step 7");
  EXPECT_EQ(sim.job(id).worker_restarts(), 1u) << "a worker was lost";
  EXPECT_EQ(sim.job(id).checkpoints_size(), 1);
}

TEST_F(SlicedGang, BehindACutThereIsNobodyToHandOverTo) {
  Start(1, 3);
  for (const int seat : {0, 1}) sim.Endpoint(Seat(seat), 1, "no pulse");
  sim.Endpoint(Seat(2), 1, "no pulse", {1});
  EXPECT_THAT(ToldToLeave(), ElementsAre(Seat(2) + " at once"));
  EXPECT_THAT(Members(), ElementsAre(0, 1));
}

TEST_F(SlicedGang, TheOrderToLeaveIsRepeatedAfterALostConnection) {
  Start(3, 3);
  sim.Lose("w2");
  sim.Hello("w0", 1, "i1", {Seat(0)});
  EXPECT_THAT(ToldToLeave(), ElementsAre(Seat(0)));
}

// It hangs: within the budget it is killed, and the others go on with what its buddy has.
TEST_F(SlicedGang, WhoLeavesAndDoesNotMeetTheOthersIsKilled) {
  Start(1, 3);
  Drain("w0");
  for (const int seat : {1, 2}) sim.Endpoint(Seat(seat), 1, "a peer is gone");
  EXPECT_THAT(Members(), ElementsAre(0, 1, 2));
  sim.Pass(8'000);
  ASSERT_THAT(sim.out.stops, SizeIs(1));
  EXPECT_EQ(sim.out.stops[0].second.task_id(), Seat(0));
  EXPECT_EQ(sim.out.stops[0].second.grace_ms(), 0u);
  EXPECT_THAT(Members(), ElementsAre(1, 2));
  EXPECT_THAT(Joining(), SizeIs(2));
}

}  // namespace
}  // namespace lepton::scheduler
