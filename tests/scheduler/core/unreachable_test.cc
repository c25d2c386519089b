// Workers of an elastic gang that cannot reach each other: who goes, who is named, who comes back
// and when.
#include <gmock/gmock.h>

#include "tests/scheduler/core/sim.h"

namespace lepton::scheduler {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

class CutGang : public GangTest {
 protected:
  // The group of `epoch` broke, or could not meet: each of its members says whom it cannot reach.
  void LeaveAll(uint64_t epoch, const std::map<uint32_t, std::vector<uint32_t>>& cannot) {
    for (const uint32_t seat : Members()) {
      const auto found = cannot.find(seat);
      sim.Endpoint(Seat(static_cast<int>(seat)), epoch, "it broke",
                   found == cannot.end() ? std::vector<uint32_t>() : found->second);
    }
  }
  std::string Told(const std::string& reason) const {
    std::string text;
    for (const Event& event : sim.job(id).events()) {
      if (event.reason_code() == reason) text += event.cause() + "\n";
    }
    return text;
  }
};

TEST_F(CutGang, OneOfTheTwoGoesAndTheOthersGoOn) {
  Start(1, 3);
  LeaveAll(1, {});
  ASSERT_EQ(gang().epoch(), 2u);
  EXPECT_FALSE(gang().forming());
  LeaveAll(2, {{2, {1}}, {1, {2}}});
  EXPECT_THAT(Members(), ElementsAre(0, 1)) << "of two the later rank goes";
  EXPECT_FALSE(gang().forming()) << "they had listed themselves";
  ASSERT_THAT(sim.out.stops, SizeIs(1));
  EXPECT_EQ(sim.out.stops[0].second.task_id(), Seat(2));
  EXPECT_TRUE(sim.out.stops[0].second.alone());
  EXPECT_THAT(sim.out.groups, SizeIs(2));
  EXPECT_THAT(Told("UNREACHABLE"),
              AllOf(HasSubstr("rank 1 on worker w1 cannot reach rank 2 on worker w2"),
                    HasSubstr("rank 2 on worker w2 cannot reach rank 1 on worker w1"),
                    HasSubstr("rank 2 on worker w2 leaves")));
  EXPECT_EQ(gang().faults_in_row(), 1u) << "one fault";
  sim.Recovered(Seat(0), 8);
  EXPECT_EQ(sim.job(id).recoveries(0).reason_code(), "UNREACHABLE");
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
}

TEST_F(CutGang, OneEndsWordIsEnough) {
  Start(1, 3);
  LeaveAll(1, {{2, {0}}});
  EXPECT_THAT(Members(), ElementsAre(0, 1));
}

TEST_F(CutGang, TheOneThatNobodyReachesGoesThoughItLeads) {
  Start(1, 3);
  LeaveAll(1, {{0, {1, 2}}, {1, {0}}, {2, {0}}});
  EXPECT_THAT(Members(), ElementsAre(1, 2));
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
}

TEST_F(CutGang, TheWorkerThatWentIsFreeForOtherWorkAndTriedAgainLater) {
  Start(1, 3);
  LeaveAll(1, {{2, {1}}});
  sim.Finish(Seat(2), "CANCELLED", "told to leave");
  EXPECT_THAT(sim.out.starts, IsEmpty()) << "no seat there for now";
  sim.Recovered(Seat(0), 8);
  EXPECT_THAT(sim.out.starts, IsEmpty());
  const std::string other = sim.Submit(Sim::Train(1, 1));
  EXPECT_EQ(sim.StateOf(other), "STARTING");
  sim.Run(sim.Living(other)[0]);
  sim.Finish(sim.Living(other)[0], "OK", "", 0, {}, "m");
  EXPECT_EQ(sim.StateOf(other), "SUCCEEDED");
  EXPECT_EQ(sim.state().FindTask(Seat(3)), nullptr);
  sim.Pass(2'000);  // the budget
  const Task* again = sim.state().FindTask(Seat(3));
  ASSERT_NE(again, nullptr);
  EXPECT_EQ(again->worker_id(), "w2");
}

TEST_F(CutGang, AJoinerThatCannotReachAMemberBreaksNothingAndWaitsLongerEachTime) {
  Start(1, 3);
  LeaveAll(1, {{2, {1}}});
  sim.Finish(Seat(2), "CANCELLED", "told to leave");
  sim.Recovered(Seat(0), 8);
  sim.Pass(2'000);
  ASSERT_NE(sim.state().FindTask(Seat(3)), nullptr);
  sim.Started(Seat(3));
  const uint64_t epoch = gang().epoch();
  sim.Endpoint(Seat(3), 0, "", {1});
  EXPECT_EQ(gang().epoch(), epoch) << "the group is left in peace";
  ASSERT_THAT(sim.out.stops, SizeIs(1));
  EXPECT_EQ(sim.out.stops[0].second.task_id(), Seat(3));
  EXPECT_THAT(Told("UNREACHABLE"), HasSubstr("rank 3 on worker w2 cannot reach rank 1"));
  sim.Finish(Seat(3), "CANCELLED", "told to leave");
  sim.Pass(3'999);
  EXPECT_EQ(sim.state().FindTask(Seat(4)), nullptr) << "twice the pause";
  sim.Pass(1);
  ASSERT_NE(sim.state().FindTask(Seat(4)), nullptr);
  // The link is whole again.
  sim.Started(Seat(4));
  sim.Endpoint(Seat(4));
  sim.Endpoint(Seat(0), epoch);
  sim.Endpoint(Seat(1), epoch);
  EXPECT_THAT(Members(), ElementsAre(0, 1, 4));
  sim.Recovered(Seat(0), 20);
  EXPECT_THAT(gang().cuts(), IsEmpty()) << "forgotten once they are in one group";
}

// Whose seat was given a member's GPU: a cut of a worker with itself, which no recovery heals.
TEST_F(CutGang, AWorkerThatIsCutFromItselfIsNotTriedForEver) {
  for (const char* worker : {"w0", "w1"}) sim.Hello(worker, 2);
  id = sim.Submit(Sim::Elastic(2, 4));
  sim.RunAll(id);
  sim.Progress(Seat(0), 7);
  sim.Finish(Seat(3), "ABORTED", "", 9);
  for (const int seat : {0, 1, 2}) sim.Endpoint(Seat(seat), 1);
  sim.Recovered(Seat(0), 8);
  const int begun = gang().tasks_size();
  for (int passed = 0; passed < 3600; ++passed) {
    sim.Pass(1'000);
    const int last = gang().tasks_size() - 1;
    if (last < 4 || gang().tasks(last).state() != TASK_PLACED) continue;
    sim.Started(Seat(last));
    const uint32_t beside = gang().tasks(last).worker_id() == gang().tasks(0).worker_id() ? 0 : 2;
    sim.Endpoint(Seat(last), 0, "", {beside});
    sim.Finish(Seat(last), "CANCELLED", "told to leave");
  }
  EXPECT_LT(gang().tasks_size() - begun, 20) << "in an hour";
  // Nobody of it is there any more: one may be.
  EXPECT_THAT(Members(), SizeIs(3));
}

// What a back-end has against the two, and what to do about it, is the user's to read.
TEST_F(CutGang, TheEventHasTheReasonThatTheRankGave) {
  Start(1, 1, 2);
  sim.Hello("w1");
  sim.Started(Seat(1));
  wire::TaskReport report;
  report.mutable_endpoint()->set_address("there");
  report.mutable_endpoint()->add_unreachable()->set_seat(0);
  report.mutable_endpoint()->mutable_unreachable(0)->set_why("both are on the same GPU");
  sim.Report(Seat(1), std::move(report));
  EXPECT_THAT(
      Told("UNREACHABLE"),
      HasSubstr("rank 1 on worker w1 cannot reach rank 0 on worker w0 (both are on the same "
                "GPU): rank 1 on worker w1 leaves, and may try again in "));
}

TEST_F(CutGang, AJoinerIsToldWhomToProbe) {
  Start(1, 2);
  sim.Finish(Seat(1), "ABORTED", "", 9);
  sim.Endpoint(Seat(0), 1);
  sim.Recovered(Seat(0), 8);
  ASSERT_NE(sim.state().FindTask(Seat(2)), nullptr);
  for (const auto& [worker, start] : sim.out.starts) {
    ASSERT_THAT(start.probe(), SizeIs(1));
    EXPECT_EQ(start.probe(0).seat(), 0u);
    EXPECT_EQ(start.probe(0).address(), "address of " + Seat(0));
  }
}

TEST_F(CutGang, BelowItsLeastAnotherWorkerTakesThePlace) {
  Start(2, 2);
  const std::string other = sim.Submit(Sim::Train(1, 1));
  sim.Hello("w2", 2);
  LeaveAll(1, {{1, {0}}});
  ASSERT_THAT(sim.out.starts, SizeIs(1));
  EXPECT_EQ(sim.out.starts[0].first, "w2");
  EXPECT_THAT(Members(), ElementsAre(0, 2));
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
}

TEST_F(CutGang, BelowItsLeastWithoutAPlaceTheJobSaysWhoCannotReachWhom) {
  Start(2, 2);
  LeaveAll(1, {{1, {0}}});
  EXPECT_EQ(sim.StateOf(id), "RECOVERING");
  EXPECT_EQ(sim.job(id).reason_code(), "UNREACHABLE");
  EXPECT_THAT(sim.job(id).cause(), HasSubstr("rank 1 on worker w1 cannot reach rank 0"));
}

TEST_F(CutGang, TheDecisionOutlivesTheCoordinator) {
  Start(1, 3);
  sim.Endpoint(Seat(0), 1, "it broke");
  sim.Endpoint(Seat(2), 1, "it broke", {1});
  sim.Restart();
  for (int w = 0; w < 3; ++w) sim.Hello("w" + std::to_string(w), 1, "i1", {Seat(w)});
  sim.Endpoint(Seat(1), 1, "it broke", {2});
  EXPECT_THAT(Members(), ElementsAre(0, 1));
  sim.TakeSnapshot();
  sim.Restart();
  EXPECT_THAT(gang().cuts(), SizeIs(1));
  sim.Hello("w2", 1, "i1", {});
  EXPECT_THAT(sim.out.starts, IsEmpty()) << "not before its time";
}

}  // namespace
}  // namespace lepton::scheduler
