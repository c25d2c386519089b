// Checkpoints that ranks write together: one exists when all of its slices are there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/scheduler/core/sim.h"

namespace lepton::scheduler {
namespace {

using testing::IsEmpty;
using testing::UnorderedElementsAre;

class SlicedCheckpoints : public testing::Test {
 protected:
  SlicedCheckpoints() {
    sim.Hello("w1", 2);
    spec::JobSpec spec = Sim::Train(2, 2);
    spec.checkpoint.keep_last = 1;
    spec.checkpoint.keep_best.count = 0;
    id = sim.Submit(spec);
    sim.RunAll(id);
  }
  std::string Rank(int rank, int attempt = 1) const {
    return id + ".a" + std::to_string(attempt) + ".r" + std::to_string(rank);
  }
  std::vector<std::string> Manifests() {
    std::vector<std::string> manifests;
    for (const auto& checkpoint : sim.job(id).checkpoints()) {
      manifests.push_back(checkpoint.manifest());
    }
    return manifests;
  }

  Sim sim;
  std::string id;
};

TEST_F(SlicedCheckpoints, OneExistsWhenItsLastPartIsThereInWhateverOrder) {
  sim.Slice(Rank(0), 5, "c5.s0");
  sim.Slice(Rank(1), 5, "c5.s1");
  EXPECT_THAT(Manifests(), IsEmpty());
  sim.Manifest(Rank(0), 5, "c5", 2);
  EXPECT_THAT(Manifests(), testing::ElementsAre("c5"));
  EXPECT_EQ(sim.job(id).checkpoints(0).objects_size(), 2);

  sim.Slice(Rank(0), 9, "c9.s0");
  sim.Manifest(Rank(0), 9, "c9", 2);
  EXPECT_THAT(Manifests(), testing::ElementsAre("c5"));
  EXPECT_THAT(sim.out.forgotten, IsEmpty());
  sim.Slice(Rank(1), 9, "c9.s1");
  EXPECT_THAT(Manifests(), testing::ElementsAre("c9"));
  EXPECT_THAT(sim.out.forgotten, UnorderedElementsAre("c5", "c5.s0", "c5.s1"));
}

// Its slice went with a worker, and the manifest came all the same.
TEST_F(SlicedCheckpoints, OneThatIsNeverWholeIsNotResumedFromAndIsForgotten) {
  sim.Slice(Rank(0), 5, "c5.s0");
  sim.Slice(Rank(1), 5, "c5.s1");
  sim.Manifest(Rank(0), 5, "c5", 2);
  sim.Slice(Rank(0), 9, "c9.s0");
  sim.Manifest(Rank(0), 9, "c9", 2);
  sim.Slice(Rank(1), 8, "c8.s1");  // nobody wrote the others
  sim.Finish(Rank(1), "INTERNAL", "it crashed", 11);
  sim.StopAll();
  EXPECT_THAT(sim.out.forgotten, UnorderedElementsAre("c9", "c9.s0", "c9.s1", "c8.s1"));
  sim.Pass(60'000);
  EXPECT_EQ(sim.state().GangOfTask(sim.Living(id).at(0))->resume_checkpoint(), "c5");
}

TEST_F(SlicedCheckpoints, ANewerOneThatIsWholeEndsTheWaitForAnOlder) {
  sim.Slice(Rank(0), 5, "c5.s0");
  sim.Manifest(Rank(0), 5, "c5", 2);
  sim.Slice(Rank(0), 9, "c9.s0");
  sim.Slice(Rank(1), 9, "c9.s1");
  sim.Manifest(Rank(0), 9, "c9", 2);
  EXPECT_THAT(Manifests(), testing::ElementsAre("c9"));
  EXPECT_THAT(sim.out.forgotten, UnorderedElementsAre("c5", "c5.s0", "c5.s1"));
  EXPECT_EQ(sim.state().FindGang(id + ".a1")->slices_size(), 0);
}

TEST(Checkpoints, OneThatCouldNotBeStoredIsAnEventOnceUntilOneIs) {
  Sim sim;
  sim.Hello("w1");
  const std::string id = sim.Submit(Sim::Train());
  sim.RunAll(id);
  std::vector<std::string> told;
  const auto lose = [&](int step) {
    wire::TaskReport report;
    report.mutable_log()->set_checkpoint_lost("checkpoint of step " + std::to_string(step));
    sim.Report(id + ".a1.r0", std::move(report));
    for (const Event& event : sim.out.events) {
      told.push_back(event.reason_code() + " " + event.cause());
    }
  };
  lose(5);
  lose(10);
  sim.Checkpoint(id + ".a1.r0", 15, "c15");
  lose(20);
  EXPECT_THAT(told, testing::ElementsAre("CHECKPOINT_LOST checkpoint of step 5",
                                         "CHECKPOINT_LOST checkpoint of step 20"));
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
}

TEST_F(SlicedCheckpoints, ARestartOfTheCoordinatorForgetsNoPart) {
  sim.Slice(Rank(0), 5, "c5.s0");
  sim.Manifest(Rank(0), 5, "c5", 2);
  sim.Restart();
  EXPECT_TRUE(sim.state().ObjectInUse("c5.s0"));
  sim.Slice(Rank(1), 5, "c5.s1");
  EXPECT_THAT(Manifests(), testing::ElementsAre("c5"));
}

}  // namespace
}  // namespace lepton::scheduler
