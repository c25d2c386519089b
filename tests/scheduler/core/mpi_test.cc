// Gangs whose ranks meet by MPI: a whole launcher world each, and once a world's MPI has lost a
// rank it is of no use to the next.
#include <gmock/gmock.h>

#include "scheduler/core/queue.h"
#include "tests/scheduler/core/sim.h"

namespace lepton::scheduler {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

spec::JobSpec Mpi(int min_workers, int max_workers) {
  spec::JobSpec spec = Sim::Train(min_workers, max_workers);
  spec.collectives = "mpi";
  return spec;
}

// The workers of one launcher.
void Launch(Sim& sim, const std::string& world, const std::vector<std::string>& workers,
            uint32_t slots = 1, const std::string& incarnation = "i1") {
  for (const std::string& worker : workers) {
    sim.Hello(worker, slots, incarnation, {}, world, 0, static_cast<uint32_t>(workers.size()));
  }
}

std::vector<std::string> WorkersOf(const Sim& sim, const std::string& job) {
  std::vector<std::string> workers;
  for (const std::string& task : sim.Living(job)) {
    workers.push_back(sim.state().FindTask(task)->worker_id());
  }
  return workers;
}

// MPI_Init waits for every process of its launcher, and takes two tasks of a worker for one.
TEST(Mpi, AGangIsAWholeLauncherWorld) {
  Sim sim;
  Launch(sim, "a", {"w1"}, 2);
  sim.Hello("w2", 2, "i1", {}, "b", 0, 2);
  EXPECT_THAT(sim.TrySubmit(Mpi(2, 2)).message(), HasSubstr("of one of 2 only 1 may be used"));
  Launch(sim, "b", {"w2", "w3"}, 2);
  EXPECT_THAT(sim.TrySubmit(Mpi(3, 4)).message(), HasSubstr("one has 1; one has 2"));
  const std::string id = sim.Submit(Mpi(1, 4));
  EXPECT_THAT(WorkersOf(sim, id), ElementsAre("w2", "w3"));
  const std::string next = sim.Submit(Mpi(2, 2));
  EXPECT_EQ(sim.StateOf(next), "QUEUED") << "both have a slot free, but their MPI is in use";
  EXPECT_THAT(WaitingReason(sim.state(), JobId(next)), HasSubstr("in use by another gang's MPI"));
  sim.RunAll(id);
  for (const std::string& task : sim.Living(id)) sim.Finish(task);
  EXPECT_EQ(sim.StateOf(next), "STARTING");
}

TEST(Mpi, OneRankNeedsNoWorld) {
  Sim sim;
  sim.Hello("w1", 1, "i1", {}, "a", 0, 2);
  sim.Hello("w2");
  spec::JobSpec evaluate = Mpi(2, 4);
  evaluate.kind = spec::JobKind::kEvaluate;
  evaluate.model.from = "digits@1";
  evaluate.register_as.clear();
  for (const spec::JobSpec& spec : {Mpi(1, 1), evaluate}) {
    EXPECT_EQ(sim.StateOf(sim.Submit(spec)), "STARTING");
  }
}

// A task's last report, with the exit status of its process.
void Exit(Sim& sim, const std::string& task, const std::string& code, int exit_status) {
  wire::TaskReport report;
  report.mutable_finished()->set_code(code);
  report.mutable_finished()->set_exit_status(exit_status);
  sim.Report(task, std::move(report));
}

struct TwoOfOneWorld {
  TwoOfOneWorld() {
    Launch(sim, "a", {"w1", "w2"});
    id = sim.Submit(Mpi(2, 2));
    sim.RunAll(id);
  }
  Sim sim;
  std::string id;
};

TEST(Mpi, AfterALostRankTheJobWaitsForAnotherLauncher) {
  TwoOfOneWorld two;
  Sim& sim = two.sim;
  sim.Checkpoint(two.id + ".a1.r0", 300, "c300");
  sim.Finish(two.id + ".a1.r1", "INTERNAL", "", 9);
  sim.Finish(two.id + ".a1.r0", "ABORTED", "rank 1 is gone");
  EXPECT_EQ(sim.StateOf(two.id), "QUEUED") << "without a back-off: there is nothing to try";
  EXPECT_EQ(sim.job(two.id).reason_code(), "MPI_OVER");
  const std::string why = WaitingReason(sim.state(), JobId(two.id));
  EXPECT_THAT(why, HasSubstr("one of 2 has lost a rank"));
  EXPECT_THAT(why, HasSubstr("rank 1 on worker w2: killed by signal 9; MPI cannot begin again"));
  EXPECT_THAT(why, HasSubstr("from its checkpoint of step 300"));
  EXPECT_THAT(sim.TrySubmit(Mpi(2, 2)).message(), HasSubstr("one of 2 has lost a rank"));
  const std::string other = sim.Submit(Sim::Train(2, 2));
  EXPECT_EQ(sim.StateOf(other), "STARTING") << "other jobs need no MPI";
  // Nor is it forgotten with the coordinator, or with a connection.
  sim.TakeSnapshot();
  sim.Restart();
  for (const char* worker : {"w1", "w2"}) sim.Lose(worker);
  sim.StopAll();
  Launch(sim, "a", {"w1", "w2"});
  EXPECT_EQ(sim.StateOf(two.id), "QUEUED");
  Launch(sim, "b", {"w3", "w4"});
  EXPECT_THAT(WorkersOf(sim, two.id), ElementsAre("w3", "w4"));
  ASSERT_FALSE(sim.out.starts.empty());
  EXPECT_EQ(sim.out.starts.back().second.resume_checkpoint(), "c300");
  sim.RunAll(two.id);
  sim.Progress(two.id + ".a2.r0", 301);
  ASSERT_THAT(sim.job(two.id).recoveries(), SizeIs(1));
  EXPECT_EQ(sim.job(two.id).recoveries(0).reason_code(), "TASK_KILLED");
  EXPECT_EQ(sim.job(two.id).worker_restarts(), 1u);
}

// Its only world is not to be had any more, though MPI could begin there.
TEST(Mpi, AJobWhoseLauncherHasLostAWorkerAwaitsAnother) {
  spec::JobSpec spec = Mpi(2, 2);
  spec.restart.log_policies = {{"ECC", "exclude_worker"}};
  for (const std::string how : {"excluded", "left", "lost"}) {
    SCOPED_TRACE(how);
    Sim sim;
    Launch(sim, "a", {"w1", "w2"});
    const std::string id = sim.Submit(spec);
    if (how == "lost") {
      for (const std::string& task : sim.Living(id)) sim.Started(task);
      sim.Lose("w2");
    } else {
      sim.RunAll(id);
    }
    EXPECT_EQ(AwaitedLauncher(sim.state(), JobId(id)), "") << "its tasks live";
    if (how == "excluded") sim.Log(id + ".a1.r1", "ECC error");
    if (how == "left") {
      sim.On(WorkerLeaving{WorkerId("w2")});
      sim.Finish(id + ".a1.r1", "CANCELLED");
    }
    sim.StopAll();
    const char* const only =
        "needs all of an mpirun or srun of 2 workers, 1 slot on each; "
        "of one of 2 only 1 may be used";
    EXPECT_THAT(AwaitedLauncher(sim.state(), JobId(id)), HasSubstr(only));
    sim.Pass(2'000);
    EXPECT_EQ(sim.StateOf(id), "QUEUED");
    EXPECT_THAT(AwaitedLauncher(sim.state(), JobId(id)), HasSubstr(only));
    for (const auto& [name, worker] : sim.state().workers) EXPECT_FALSE(worker.mpi_over()) << name;
    Launch(sim, "b", {"w3", "w4"});
    EXPECT_THAT(WorkersOf(sim, id), ElementsAre("w3", "w4"));
    EXPECT_EQ(AwaitedLauncher(sim.state(), JobId(id)), "");
  }
}

TEST(Mpi, AJobThatWaitsForItsTurnAwaitsNoOtherLauncher) {
  TwoOfOneWorld two;
  Sim& sim = two.sim;
  const std::string next = sim.Submit(Mpi(2, 2));
  EXPECT_EQ(sim.StateOf(next), "QUEUED");
  EXPECT_EQ(AwaitedLauncher(sim.state(), JobId(next)), "");
  sim.Lose("w2");
  EXPECT_THAT(AwaitedLauncher(sim.state(), JobId(next)), HasSubstr("only 1 may be used"));
  const std::string other = sim.Submit(Sim::Train(2, 2));
  EXPECT_EQ(AwaitedLauncher(sim.state(), JobId(other)), "") << "it needs workers, and no launcher";
}

// As `lepton run --resume` has it: workers of the same names.
TEST(Mpi, NewProcessesOfTheSameNamesBeginAnew) {
  TwoOfOneWorld two;
  Sim& sim = two.sim;
  sim.Restart();
  Launch(sim, "b", {"w1", "w2"}, 1, "i2");
  EXPECT_EQ(sim.StateOf(two.id), "STARTING");
  EXPECT_EQ(sim.job(two.id).attempt(), 2u);
}

TEST(Mpi, RanksThatEndTogetherLeaveTheWorldToTheNext) {
  for (const char* how : {"done", "cancelled", "failed", "drained"}) {
    SCOPED_TRACE(how);
    TwoOfOneWorld two;
    Sim& sim = two.sim;
    const std::string code = how == std::string("done")     ? "OK"
                             : how == std::string("failed") ? "FAILED_PRECONDITION"
                                                            : "CANCELLED";
    if (how == std::string("cancelled")) sim.On(CancelJob{JobId(two.id), "not wanted"});
    if (how == std::string("drained")) sim.On(DrainWorker{WorkerId("w2")});
    for (const std::string& task : sim.Living(two.id)) Exit(sim, task, code, code != "OK");
    if (how == std::string("drained")) Launch(sim, "a", {"w2"}, 1, "i2");
    for (const auto& [id, worker] : sim.state().workers) EXPECT_FALSE(worker.mpi_over());
  }
}

// MPI_Finalize comes behind a task's last word: one that is killed there has not said so.
TEST(Mpi, RanksThatSayTheSameButDoNotComeThroughMpiFinalizeSpoilTheWorld) {
  struct Case {
    const char* code;
    int exit_status;
  };
  for (const Case& c :
       {Case{"OK", 128 + 9}, Case{"CANCELLED", 128 + 9}, Case{"RESOURCE_EXHAUSTED", 3}}) {
    SCOPED_TRACE(c.code);
    TwoOfOneWorld two;
    Sim& sim = two.sim;
    if (c.code == std::string("CANCELLED")) sim.On(CancelJob{JobId(two.id), "not wanted"});
    Exit(sim, two.id + ".a1.r0", c.code, c.code != std::string("OK"));
    Exit(sim, two.id + ".a1.r1", c.code, c.exit_status);
    for (const auto& [id, worker] : sim.state().workers) EXPECT_TRUE(worker.mpi_over()) << id;
  }
}

// Who is killed as it waits in MPI_Init was not in it yet.
TEST(Mpi, ARankThatIsKilledBeforeTheyHaveMetLeavesTheWorldToTheNext) {
  Sim sim;
  Launch(sim, "a", {"w1", "w2"});
  const std::string id = sim.Submit(Mpi(2, 2));
  sim.Started(id + ".a1.r0");
  sim.Finish(id + ".a1.r1", "INTERNAL", "", 9);
  sim.StopAll();
  EXPECT_EQ(sim.StateOf(id), "RECOVERING");
  sim.Pass(2'000);
  EXPECT_EQ(sim.StateOf(id), "STARTING");
}

// Its trials have two ranks each: one at a time.
struct SearchInOneWorld {
  SearchInOneWorld() {
    Launch(sim, "a", {"w1", "w2"});
    spec::JobSpec spec = Sim::Tune("random", 3);
    spec.collectives = "mpi";
    spec.resources.min_workers = spec.resources.max_workers = 2;
    id = sim.Submit(spec);
    sim.RunAll(id);
  }
  Sim sim;
  std::string id;
};

TEST(Mpi, ASearchWhoseTrialHasLostARankAwaitsAnotherLauncher) {
  SearchInOneWorld search;
  Sim& sim = search.sim;
  const std::string& id = search.id;
  ASSERT_THAT(sim.Living(id), SizeIs(2)) << "one trial at a time";
  EXPECT_EQ(AwaitedLauncher(sim.state(), JobId(id)), "");
  sim.Checkpoint(id + ".t0.a1.r0", 5, "c5");
  sim.Finish(id + ".t0.a1.r1", "INTERNAL", "", 9);
  sim.StopAll();
  EXPECT_THAT(AwaitedLauncher(sim.state(), JobId(id)),
              HasSubstr("one of 2 has lost a rank; rank 1 on worker w2: killed by signal 9"));
  sim.Pass(60'000);
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
  EXPECT_THAT(sim.Living(id), IsEmpty());
  Launch(sim, "b", {"w3", "w4"});
  EXPECT_THAT(WorkersOf(sim, id), ElementsAre("w3", "w4"));
  EXPECT_EQ(AwaitedLauncher(sim.state(), JobId(id)), "");
  ASSERT_FALSE(sim.out.starts.empty());
  EXPECT_EQ(sim.out.starts.back().second.resume_checkpoint(), "c5");
}

// Ctrl-C of `lepton run`, where a step takes longer than the grace: --resume goes on.
TEST(Mpi, ASearchWhoseTrialIsKilledAsItsWorkersLeaveGoesOnInAnotherLauncher) {
  SearchInOneWorld search;
  Sim& sim = search.sim;
  const std::string& id = search.id;
  for (const char* worker : {"w1", "w2"}) sim.On(DrainWorker{WorkerId(worker), "the run stops"});
  for (const std::string& task : sim.Living(id)) sim.Finish(task, "CANCELLED", "", 9);
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
  for (const char* worker : {"w1", "w2"}) sim.Lose(worker);
  sim.Restart();
  EXPECT_THAT(AwaitedLauncher(sim.state(), JobId(id)),
              HasSubstr("no worker was started by either"));
  Launch(sim, "b", {"w1", "w2"}, 1, "i2");
  EXPECT_THAT(sim.Living(id), ElementsAre(id + ".t0.a2.r0", id + ".t0.a2.r1"));
}

}  // namespace
}  // namespace lepton::scheduler
