#include <gmock/gmock.h>

#include "tests/scheduler/core/sim.h"

namespace lepton::scheduler {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

TEST(JobStates, OnlyWhatTheDiagramShows) {
  EXPECT_TRUE(CanMove(JOB_QUEUED, JOB_STARTING));
  EXPECT_TRUE(CanMove(JOB_RECOVERING, JOB_QUEUED));
  EXPECT_FALSE(CanMove(JOB_QUEUED, JOB_RUNNING));
  EXPECT_FALSE(CanMove(JOB_STOPPING, JOB_SUCCEEDED));
  for (JobState end : {JOB_SUCCEEDED, JOB_FAILED, JOB_CANCELLED}) {
    for (int to = JobState_MIN; to <= JobState_MAX; ++to) {
      EXPECT_FALSE(CanMove(end, static_cast<JobState>(to)));
    }
  }
  EXPECT_EQ(JobStateName(JOB_QUEUED), "QUEUED");
  EXPECT_EQ(JobStateFromName("RECOVERING"), JOB_RECOVERING);
  EXPECT_EQ(JobStateFromName("ASLEEP"), JOB_STATE_UNSPECIFIED);
}

TEST(Jobs, IllegalTransitionIsRefusedByApply) {
  Sim sim;
  const std::string id = sim.Submit(Sim::Train());
  State state;
  for (const std::string& record : sim.journal) ASSERT_TRUE(ApplyBytes(record, state).ok());
  Record record;
  record.set_version(1);
  record.set_seq(state.last_seq + 1);
  record.mutable_job_moved()->set_job_id(id);
  record.mutable_job_moved()->set_from(JOB_QUEUED);
  record.mutable_job_moved()->set_to(JOB_SUCCEEDED);
  EXPECT_EQ(Apply(record, state).code(), StatusCode::kDataLoss);
  record.mutable_job_moved()->set_to(JOB_CANCELLED);
  record.set_seq(state.last_seq + 2);
  EXPECT_EQ(Apply(record, state).code(), StatusCode::kDataLoss) << "a gap in the journal";
}

TEST(Jobs, GangOfTwoLivesFromSubmitToModel) {
  Sim sim;
  sim.Hello("w1");
  sim.Hello("w2");
  const std::string id = sim.Submit(Sim::Train(2, 2));
  ASSERT_EQ(id, "j1");
  EXPECT_EQ(sim.StateOf(id), "STARTING");
  ASSERT_THAT(sim.out.starts, SizeIs(2));
  EXPECT_THAT(sim.out.order, testing::EndsWith("SS")) << "records come before what they allow";
  const wire::StartTask& start = sim.out.starts[1].second;
  EXPECT_EQ(start.task_id(), "j1.a1.r1");
  EXPECT_EQ(start.size(), 2u);
  EXPECT_EQ(start.kind(), "train");
  EXPECT_EQ(start.group_token().size(), 16u);
  EXPECT_EQ(start.dataset_manifest(), "data");
  EXPECT_EQ(start.inputs_size(), 2);

  sim.Started("j1.a1.r0");
  sim.Endpoint("j1.a1.r0");
  EXPECT_THAT(sim.out.groups, IsEmpty());
  sim.Started("j1.a1.r1");
  sim.Endpoint("j1.a1.r1");
  ASSERT_THAT(sim.out.groups, SizeIs(2));
  EXPECT_EQ(sim.out.groups[0].second.members(1).address(), "address of j1.a1.r1");
  EXPECT_EQ(sim.StateOf(id), "RUNNING");

  sim.Progress("j1.a1.r0", 10, {{"train/loss", 0.5}});
  EXPECT_EQ(sim.job(id).progress().step(), 10u);
  sim.Finish("j1.a1.r0", "OK", "", 0, {{"test/accuracy", 0.97}}, "model");
  EXPECT_EQ(sim.StateOf(id), "RUNNING") << "rank 1 lives";
  sim.Finish("j1.a1.r1");
  EXPECT_EQ(sim.StateOf(id), "SUCCEEDED");
  EXPECT_EQ(sim.job(id).result().model_manifest(), "model");
  EXPECT_EQ(sim.job(id).model_name(), "digits");
  EXPECT_EQ(sim.job(id).model_version(), 1u);
  const auto found = sim.state().FindModel("model", "digits@1");
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(found->version->job_id(), id);
  EXPECT_EQ(found->version->dataset(), "digits@1");
  EXPECT_THAT(sim.Living(), IsEmpty());
  EXPECT_EQ(sim.job(id).last_tasks_size(), 2);
  std::vector<std::string> path;
  for (const Event& event : sim.job(id).events()) path.push_back(event.to());
  EXPECT_THAT(path, ElementsAre("QUEUED", "STARTING", "RUNNING", "SUCCEEDED"));
}

TEST(Jobs, ResultOfRankZeroCountsEvenIfAnotherRankDiesAfterIt) {
  Sim sim;
  sim.Hello("w1");
  sim.Hello("w2");
  const std::string id = sim.Submit(Sim::Train(2, 2));
  sim.RunAll(id);
  sim.Finish("j1.a1.r0", "OK", "", 0, {}, "model");
  sim.Finish("j1.a1.r1", "INTERNAL", "", 9);
  EXPECT_EQ(sim.StateOf(id), "SUCCEEDED");
}

TEST(Jobs, RankThatLingersAfterTheResultIsStopped) {
  Sim sim;
  sim.Hello("w1");
  sim.Hello("w2");
  const std::string id = sim.Submit(Sim::Train(2, 2));
  sim.RunAll(id);
  sim.Finish("j1.a1.r0", "OK", "", 0, {}, "model");
  sim.Pass(15'001);
  EXPECT_EQ(sim.state().FindGang("j1.a1")->state(), GANG_STOPPING);
  sim.StopAll();
  EXPECT_EQ(sim.StateOf(id), "SUCCEEDED");
}

TEST(Jobs, GangIsPlacedWholeOrNotAtAll) {
  Sim sim;
  const std::string id = sim.Submit(Sim::Train(2, 2));
  EXPECT_EQ(WaitingReason(sim.state(), JobId(id)), "no worker is up");
  sim.Hello("w1");
  EXPECT_EQ(sim.StateOf(id), "QUEUED");
  EXPECT_THAT(sim.out.starts, IsEmpty());
  EXPECT_EQ(WaitingReason(sim.state(), JobId(id)), "needs 2 x 1 slots, 1 free of 1");
  sim.Hello("w2");
  EXPECT_EQ(sim.StateOf(id), "STARTING");
  EXPECT_THAT(sim.out.starts, SizeIs(2));
}

TEST(Jobs, TakesAsManyRanksAsThereAreUpToTheMost) {
  Sim sim;
  sim.Hello("w1", 2);
  sim.Hello("w2", 1);
  sim.Submit(Sim::Train(1, 8));
  EXPECT_THAT(sim.out.starts, SizeIs(3));
}

TEST(Jobs, HigherPriorityFirstThenFirstCome) {
  Sim sim;
  sim.Hello("w1");
  const std::string running = sim.Submit(Sim::Train());
  const std::string first = sim.Submit(Sim::Train());
  const std::string second = sim.Submit(Sim::Train());
  spec::JobSpec urgent = Sim::Train();
  urgent.priority = 90;
  const std::string third = sim.Submit(urgent);
  EXPECT_EQ(WaitingReason(sim.state(), JobId(first)), "behind " + third);
  EXPECT_EQ(WaitingReason(sim.state(), JobId(third)), "needs 1 x 1 slots, 0 free of 1");
  for (const std::string& next : {running, third, first, second}) {
    ASSERT_EQ(sim.Living(), std::vector<std::string>{next + ".a1.r0"});
    sim.RunAll(next);
    sim.Finish(next + ".a1.r0", "OK", "", 0, {}, "m");
  }
}

TEST(Jobs, LargeGangIsNotStarvedBySmallJobs) {
  Sim sim;
  sim.Hello("w1");
  sim.Hello("w2");
  const std::string small = sim.Submit(Sim::Train());
  const std::string large = sim.Submit(Sim::Train(2, 2));
  const std::string late = sim.Submit(Sim::Train());
  EXPECT_EQ(sim.StateOf(late), "QUEUED") << "there is a slot, but the gang is first";
  EXPECT_EQ(WaitingReason(sim.state(), JobId(late)), "behind " + large);
  sim.RunAll(small);
  sim.Finish(small + ".a1.r0", "OK", "", 0, {}, "m");
  EXPECT_EQ(sim.StateOf(large), "STARTING");
  EXPECT_EQ(sim.StateOf(late), "QUEUED");
}

TEST(Jobs, JobThatNoPoolOfTodayFitsHoldsUpNobody) {
  Sim sim;
  sim.Hello("w1");
  sim.Hello("w2");
  const std::string large = sim.Submit(Sim::Train(2, 2));
  sim.Lose("w2");
  sim.StopAll();
  sim.Pass(1'000);
  EXPECT_EQ(sim.StateOf(large), "QUEUED");
  const std::string small = sim.Submit(Sim::Train());
  EXPECT_EQ(sim.StateOf(small), "STARTING");
}

TEST(Jobs, MoreThanThePoolCouldEverHaveIsRefused) {
  Sim sim;
  EXPECT_TRUE(sim.TrySubmit(Sim::Train(64, 64)).ok()) << "nobody knows the pool yet";
  sim.Hello("w1", 2);
  const Status refused = sim.TrySubmit(Sim::Train(3, 3));
  EXPECT_EQ(refused.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(refused.message(), HasSubstr("needs 3 x 1 slots"));
  EXPECT_EQ(sim.TrySubmit(Sim::Train(1, 1, 3)).code(), StatusCode::kFailedPrecondition);
  spec::JobSpec cuda = Sim::Train();
  cuda.resources.device = "cuda";
  EXPECT_EQ(sim.TrySubmit(cuda).code(), StatusCode::kFailedPrecondition);
  EXPECT_TRUE(sim.TrySubmit(Sim::Train(2, 2)).ok());
}

TEST(Jobs, ThatComputeOnGpusHaveThemGivenByTheirWorkers) {
  for (const auto& [device, collectives, gpu] :
       {std::tuple("cpu", "auto", false), {"cuda", "auto", true}, {"cpu", "nccl", true}}) {
    Sim sim;
    for (const char* worker : {"w0", "w1"}) sim.Hello(worker, 1, "i1", {}, "", 2);
    spec::JobSpec spec = Sim::Elastic(1, 3);
    spec.resources.device = device;
    spec.collectives = collectives;
    const std::string id = sim.Submit(spec);
    ASSERT_THAT(sim.out.starts, SizeIs(2));
    EXPECT_EQ(sim.out.starts[0].second.gpu(), gpu) << device << ", " << collectives;
    EXPECT_EQ(sim.out.starts[1].second.gpu(), gpu) << device << ", " << collectives;
    sim.RunAll(id);
    sim.Progress(id + ".a1.r0", 7);
    sim.Hello("w2", 1, "i1", {}, "", 2);
    ASSERT_THAT(sim.out.starts, SizeIs(1));
    EXPECT_TRUE(sim.out.starts[0].second.joins());
    EXPECT_EQ(sim.out.starts[0].second.gpu(), gpu) << device << ", " << collectives;
  }
}

TEST(Jobs, RefusedBeforeAnythingIsStored) {
  Sim sim;
  spec::JobSpec spec = Sim::Train();
  spec.restart.log_policies = {{"(unclosed", "fail_job"}};
  EXPECT_EQ(sim.TrySubmit(spec).code(), StatusCode::kInvalidArgument);
  SubmitJob dotted{JobId("a.b"), "", Sim::Train(), Sim::Inputs()};
  sim.On(dotted);
  EXPECT_EQ(sim.Last().status.code(), StatusCode::kInvalidArgument);
  SubmitJob bad{JobId("a b"), "", Sim::Train(), Sim::Inputs()};
  sim.On(bad);
  EXPECT_EQ(sim.Last().status.code(), StatusCode::kInvalidArgument);
  spec = Sim::Tune("astrology", 4);
  EXPECT_FALSE(sim.TrySubmit(spec).ok());
  EXPECT_THAT(sim.journal, IsEmpty());
}

TEST(Jobs, IdempotencyKeyRepeatGivesTheSameJob) {
  Sim sim;
  sim.On(SubmitJob{JobId(), "key", Sim::Train(), Sim::Inputs()});
  ASSERT_TRUE(sim.Last().status.ok());
  EXPECT_FALSE(sim.Last().existed);
  const std::string id = sim.Last().id;
  sim.Restart();
  sim.On(SubmitJob{JobId(), "key", Sim::Train(), Sim::Inputs()});
  EXPECT_TRUE(sim.Last().status.ok());
  EXPECT_TRUE(sim.Last().existed);
  EXPECT_EQ(sim.Last().id, id);
  EXPECT_THAT(sim.state().jobs, SizeIs(1));
  sim.On(SubmitJob{JobId(), "key", Sim::Train(2, 2), Sim::Inputs()});
  EXPECT_EQ(sim.Last().status.code(), StatusCode::kAlreadyExists);
}

TEST(Jobs, ChosenIdIsKeptAndNeverGivenTwice) {
  Sim sim;
  sim.On(SubmitJob{JobId("j2"), "", Sim::Train(), Sim::Inputs()});
  EXPECT_EQ(sim.Last().id, "j2");
  sim.On(SubmitJob{JobId("j2"), "", Sim::Train(), Sim::Inputs()});
  EXPECT_TRUE(sim.Last().existed);
  sim.On(SubmitJob{JobId("j2"), "", Sim::Train(2, 2), Sim::Inputs()});
  EXPECT_EQ(sim.Last().status.code(), StatusCode::kAlreadyExists);
  EXPECT_EQ(sim.Submit(Sim::Train()), "j3");
}

TEST(Jobs, CancelWhileQueued) {
  Sim sim;
  const std::string id = sim.Submit(Sim::Train());
  sim.On(CancelJob{JobId(id), "asked"});
  EXPECT_TRUE(sim.Last().status.ok());
  EXPECT_EQ(sim.StateOf(id), "CANCELLED");
  sim.On(CancelJob{JobId(id), "asked again"});
  EXPECT_TRUE(sim.Last().existed);
  sim.Hello("w1");
  EXPECT_THAT(sim.out.starts, IsEmpty());
}

TEST(Jobs, CancelWhileStartingAndRunningWaitsForEveryTask) {
  for (bool running : {false, true}) {
    Sim sim;
    sim.Hello("w1");
    sim.Hello("w2");
    const std::string id = sim.Submit(Sim::Train(2, 2));
    if (running) sim.RunAll(id);
    sim.On(CancelJob{JobId(id), "asked"});
    EXPECT_EQ(sim.StateOf(id), "STOPPING");
    EXPECT_THAT(sim.out.stops, SizeIs(2));
    sim.Finish(id + ".a1.r0", "CANCELLED");
    EXPECT_EQ(sim.StateOf(id), "STOPPING");
    sim.Finish(id + ".a1.r1", "CANCELLED");
    EXPECT_EQ(sim.StateOf(id), "CANCELLED");
  }
}

TEST(Jobs, CancelWhileRecovering) {
  Sim sim;
  sim.Hello("w1");
  const std::string id = sim.Submit(Sim::Train());
  sim.RunAll(id);
  sim.Finish(id + ".a1.r0", "INTERNAL", "oops");
  EXPECT_EQ(sim.StateOf(id), "RECOVERING");
  sim.On(CancelJob{JobId(id), "asked"});
  EXPECT_EQ(sim.StateOf(id), "CANCELLED");
}

TEST(Jobs, CancelOfWhatIsOverOrUnknownIsRefused) {
  Sim sim;
  sim.On(CancelJob{JobId("nope"), ""});
  EXPECT_EQ(sim.Last().status.code(), StatusCode::kNotFound);
  sim.Hello("w1");
  const std::string id = sim.Submit(Sim::Train());
  sim.RunAll(id);
  sim.Finish(id + ".a1.r0", "OK", "", 0, {}, "m");
  sim.On(CancelJob{JobId(id), ""});
  EXPECT_EQ(sim.Last().status.code(), StatusCode::kFailedPrecondition);
}

TEST(Jobs, DeadlineStopsAndFails) {
  Sim sim;
  sim.Hello("w1");
  spec::JobSpec spec = Sim::Train();
  spec.deadline = seconds(60);
  const std::string running = sim.Submit(spec);
  const std::string queued = sim.Submit(spec);
  sim.RunAll(running);
  sim.Pass(59'999);
  EXPECT_EQ(sim.StateOf(running), "RUNNING");
  sim.Pass(1);
  EXPECT_EQ(sim.StateOf(running), "STOPPING");
  EXPECT_EQ(sim.StateOf(queued), "FAILED");
  sim.StopAll();
  EXPECT_EQ(sim.StateOf(running), "FAILED");
  EXPECT_EQ(sim.job(running).error_code(), "DEADLINE_EXCEEDED");
}

TEST(Jobs, NanLossFailsAtOnceAndKeepsTheLastCheckpoint) {
  Sim sim;
  sim.Hello("w1");
  sim.Hello("w2");
  const std::string id = sim.Submit(Sim::Train(2, 2));
  sim.RunAll(id);
  sim.Checkpoint(id + ".a1.r0", 100, "c100");
  sim.Finish(id + ".a1.r0", "FAILED_PRECONDITION", "loss is NaN at step 117");
  EXPECT_EQ(sim.StateOf(id), "STOPPING");
  sim.StopAll();
  EXPECT_EQ(sim.StateOf(id), "FAILED");
  EXPECT_THAT(sim.job(id).error(), HasSubstr("loss is NaN at step 117"));
  EXPECT_EQ(sim.job(id).error_code(), "FAILED_PRECONDITION");
  ASSERT_EQ(sim.job(id).checkpoints_size(), 1);
  EXPECT_EQ(sim.job(id).checkpoints(0).manifest(), "c100");
  EXPECT_EQ(sim.job(id).task_restarts(), 0u);
}

TEST(Jobs, EvaluationIsOneTaskAndRegistersNothing) {
  Sim sim;
  sim.Hello("w1", 4);
  spec::JobSpec spec = Sim::Train(2, 4);
  spec.kind = spec::JobKind::kEvaluate;
  spec.model.from = "digits@1";
  spec.register_as.clear();
  const std::string id = sim.Submit(spec);
  ASSERT_THAT(sim.out.starts, SizeIs(1));
  EXPECT_EQ(sim.out.starts[0].second.kind(), "evaluate");
  sim.RunAll(id);
  sim.Finish(id + ".a1.r0", "OK", "", 0, {{"test/accuracy", 0.9}});
  EXPECT_EQ(sim.StateOf(id), "SUCCEEDED");
  EXPECT_EQ(sim.job(id).result().metrics().at("test/accuracy"), 0.9);
  EXPECT_THAT(sim.state().models, IsEmpty());
}

TEST(Jobs, OneThatNeedsAWorkerThatWasHereALittleWhileAgoIsAccepted) {
  Sim sim;
  sim.Hello("w1");
  sim.Hello("w2");
  sim.Lose("w2");
  const std::string id = sim.Submit(Sim::Train(2, 2));
  EXPECT_EQ(sim.StateOf(id), "QUEUED");
  EXPECT_EQ(sim.TrySubmit(Sim::Train(3, 3)).code(), StatusCode::kFailedPrecondition);
  sim.Hello("w2", 1, "i2");
  EXPECT_EQ(sim.StateOf(id), "STARTING");
}

TEST(Jobs, SuccessWithoutTheModelItWasToRegisterIsAFailure) {
  Sim sim;
  sim.Hello("w1");
  const std::string id = sim.Submit(Sim::Train());
  sim.RunAll(id);
  sim.Finish(id + ".a1.r0");
  EXPECT_EQ(sim.StateOf(id), "FAILED");
}

TEST(Jobs, KeepsTheLastAndTheBestCheckpointsAndForgetsTheRest) {
  Sim sim;
  sim.Hello("w1");
  spec::JobSpec spec = Sim::Train();
  spec.checkpoint.keep_last = 1;
  const std::string id = sim.Submit(spec);
  const std::string task = id + ".a1.r0";
  sim.RunAll(id);
  const std::string metric = "validation/accuracy";
  sim.Checkpoint(task, 100, "c100", {{metric, 0.9}});
  sim.Checkpoint(task, 200, "c200", {{metric, 0.5}});
  EXPECT_THAT(sim.out.forgotten, IsEmpty());
  sim.Checkpoint(task, 300, "c300", {{metric, 0.6}});
  EXPECT_THAT(sim.out.forgotten, testing::UnorderedElementsAre("c200", "c200.data"));
  ASSERT_EQ(sim.job(id).checkpoints_size(), 2);
  EXPECT_EQ(sim.job(id).checkpoints(0).manifest(), "c100");
  EXPECT_EQ(sim.job(id).checkpoints(1).manifest(), "c300");
}

TEST(Jobs, KeepsSeveralOfTheLastAndThoseWithTheLeastLoss) {
  Sim sim;
  sim.Hello("w1");
  spec::JobSpec spec = Sim::Train();
  const std::string metric = "validation/loss";
  spec.checkpoint.keep_last = 2;
  spec.checkpoint.keep_best = {metric, "min", 2};
  const std::string id = sim.Submit(spec);
  const std::string task = id + ".a1.r0";
  sim.RunAll(id);
  const auto kept = [&] {
    std::vector<std::string> manifests;
    for (const auto& one : sim.job(id).checkpoints()) manifests.push_back(one.manifest());
    return manifests;
  };
  sim.Checkpoint(task, 100, "c100", {{metric, 0.3}});
  sim.Checkpoint(task, 200, "c200", {{metric, 0.9}});
  sim.Checkpoint(task, 300, "c300", {{metric, 0.2}});
  EXPECT_THAT(kept(), testing::ElementsAre("c100", "c200", "c300"));  // 200 is one of the last two
  sim.Checkpoint(task, 400, "c400", {{metric, 0.8}});
  EXPECT_THAT(kept(), testing::ElementsAre("c100", "c300", "c400"));
  EXPECT_THAT(sim.out.forgotten, testing::UnorderedElementsAre("c200", "c200.data"));
  sim.Checkpoint(task, 500, "c500", {{metric, 0.1}});
  EXPECT_THAT(kept(), testing::ElementsAre("c300", "c400", "c500"));
  sim.Checkpoint(task, 600, "c600");  // without a figure it is never one of the best
  EXPECT_THAT(kept(), testing::ElementsAre("c300", "c500", "c600"));
}

TEST(Jobs, ObjectsThatAnotherJobHoldsAreNotForgotten) {
  Sim sim;
  sim.Hello("w1", 2);
  spec::JobSpec spec = Sim::Train();
  spec.checkpoint.keep_last = 1;
  spec.checkpoint.keep_best.count = 0;
  const std::string one = sim.Submit(spec), two = sim.Submit(spec);
  sim.RunAll(one);
  sim.RunAll(two);
  sim.Checkpoint(one + ".a1.r0", 100, "same");
  sim.Checkpoint(two + ".a1.r0", 100, "same");
  sim.Checkpoint(one + ".a1.r0", 200, "other");
  EXPECT_THAT(sim.out.forgotten, IsEmpty());
  sim.Checkpoint(two + ".a1.r0", 200, "third");
  EXPECT_THAT(sim.out.forgotten, testing::UnorderedElementsAre("same", "same.data"));
}

}  // namespace
}  // namespace lepton::scheduler
