// What the recovery ledger has of jobs that start again (apply_restarts.cc).
#include <gmock/gmock.h>

#include "tests/scheduler/core/sim.h"

namespace lepton::scheduler {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// The dearest recoveries are in the ledger too.
TEST(Restarts, ARestartIsInTheLedgerFromItsFaultToTheNextProgress) {
  Sim sim;
  sim.Hello("w1");
  const std::string id = sim.Submit(Sim::Train());
  sim.RunAll(id);
  sim.Progress(id + ".a1.r0", 7);
  sim.Checkpoint(id + ".a1.r0", 5, "c5");
  wire::TaskReport failed;
  failed.mutable_finished()->set_code("INTERNAL");
  failed.mutable_finished()->set_message("oops");
  failed.set_wall_ms(sim.now - 30);  // the worker's word came late
  sim.Report(id + ".a1.r0", failed);
  EXPECT_THAT(sim.job(id).recoveries(), IsEmpty()) << "not over";
  sim.Pass(1'000);
  ASSERT_EQ(sim.StateOf(id), "STARTING");
  sim.Pass(200);
  sim.RunAll(id);
  sim.Pass(50);
  wire::TaskReport preparing;
  preparing.mutable_progress()->set_phase("tokenising text");
  sim.Report(id + ".a2.r0", preparing);
  EXPECT_THAT(sim.job(id).recoveries(), IsEmpty()) << "getting ready is no progress";
  sim.Progress(id + ".a2.r0", 6);
  ASSERT_THAT(sim.job(id).recoveries(), SizeIs(1));
  const Recovery ledger = sim.job(id).recoveries(0);
  EXPECT_TRUE(ledger.restart());
  EXPECT_EQ(ledger.reason_code(), "TASK_FAILED");
  EXPECT_THAT(ledger.cause(), HasSubstr("oops"));
  EXPECT_EQ(ledger.detect(), 30);
  EXPECT_EQ(ledger.agree(), 1'000);
  EXPECT_EQ(ledger.rebuild(), 200);
  EXPECT_EQ(ledger.first_commit(), 50);
  EXPECT_EQ(ledger.total(), 1'280);
  EXPECT_EQ(ledger.attempt(), 2u);
  EXPECT_EQ(ledger.step(), 6u);
  EXPECT_EQ(ledger.ranks(), 1u);
  EXPECT_EQ(sim.job(id).recovery_count(), 0u) << "of those in place";
  const Event& told = sim.out.events.back();
  EXPECT_EQ(told.from() + " " + told.to(), "RECOVERING RUNNING");
  EXPECT_THAT(told.cause(), HasSubstr("started again in 1280 ms"));
  sim.Progress(id + ".a2.r0", 9);
  EXPECT_THAT(sim.job(id).recoveries(), SizeIs(1));

  // One that fails again before it has gone on is one entry, of the first fault.
  sim.Finish(id + ".a2.r0", "INTERNAL", "first");
  sim.Pass(2'000);
  sim.RunAll(id);
  sim.Finish(id + ".a3.r0", "INTERNAL", "second");
  sim.Pass(4'000);
  sim.RunAll(id);
  sim.Progress(id + ".a4.r0", 8);
  ASSERT_THAT(sim.job(id).recoveries(), SizeIs(2));
  EXPECT_THAT(sim.job(id).recoveries(1).cause(), HasSubstr("first"));
  EXPECT_EQ(sim.job(id).recoveries(1).attempt(), 4u);
  EXPECT_EQ(sim.job(id).recoveries(1).total(), 6'000);
}

TEST(Restarts, ARestartIsBlamedOnWhoIsToBlameOnceAllHaveSaid) {
  TwoRanks two(2);
  Sim& sim = two.sim;
  sim.RunAll(two.id);
  sim.Progress(two.id + ".a1.r0", 3);
  sim.Finish(two.id + ".a1.r0", "ABORTED", "rank 1 is gone");
  sim.Pass(10);
  wire::TaskReport killed;
  killed.mutable_finished()->set_code("INTERNAL");
  killed.mutable_finished()->set_signal(9);
  killed.set_wall_ms(sim.now);
  sim.Report(two.id + ".a1.r1", killed);
  sim.Pass(1'000);
  sim.RunAll(two.id);
  sim.Progress(two.id + ".a2.r0", 4);
  ASSERT_THAT(sim.job(two.id).recoveries(), SizeIs(1));
  EXPECT_EQ(sim.job(two.id).recoveries(0).reason_code(), "TASK_KILLED");
  EXPECT_THAT(sim.job(two.id).recoveries(0).cause(), HasSubstr("rank 1"));
}

// What tells of no progress, such as an evaluation, is over the restart when it is done.
TEST(Restarts, AJobThatEndsWithoutProgressHasItsRestartInTheLedger) {
  Sim sim;
  sim.Hello("w1");
  const std::string id = sim.Submit(Sim::Train());
  sim.RunAll(id);
  sim.Finish(id + ".a1.r0", "INTERNAL", "oops");
  sim.Pass(1'000);
  sim.RunAll(id);
  sim.Pass(70);
  sim.Finish(id + ".a2.r0", "OK", "");
  ASSERT_THAT(sim.job(id).recoveries(), SizeIs(1));
  EXPECT_EQ(sim.job(id).recoveries(0).first_commit(), 70);
  EXPECT_EQ(sim.job(id).recoveries(0).attempt(), 2u);
}

TEST(Restarts, AJobThatHasNotBegunIsNotRestarted) {
  TwoRanks two;
  Sim& sim = two.sim;
  sim.Lose("w1");
  sim.StopAll();
  sim.Pass(1'000);
  sim.RunAll(two.id);
  sim.Progress(two.id + ".a2.r0", 4);
  EXPECT_THAT(sim.job(two.id).recoveries(), IsEmpty());
}

}  // namespace
}  // namespace lepton::scheduler
