#include <gmock/gmock.h>

#include "tests/scheduler/core/sim.h"

namespace lepton::scheduler {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

CreateDeployment Deploy(int replicas, int slots = 1) {
  CreateDeployment create;
  create.spec.name = "digits";
  create.spec.model = "digits@1";
  create.spec.replicas = replicas;
  create.spec.slots_per_replica = slots;
  create.model = "digits@1";
  create.model_manifest = "model";
  create.model_objects.resize(2);
  create.model_objects[0].set_digest("model");
  create.model_objects[1].set_digest("weights");
  return create;
}

TEST(Deployments, ReplicasSpreadAndBecomeRoutable) {
  Sim sim;
  sim.Hello("w1", 2);
  sim.Hello("w2", 2);
  sim.On(Deploy(2));
  EXPECT_TRUE(sim.Last().status.ok());
  ASSERT_THAT(sim.out.starts, SizeIs(2));
  EXPECT_NE(sim.out.starts[0].first, sim.out.starts[1].first);
  const wire::StartTask& start = sim.out.starts[0].second;
  EXPECT_EQ(start.kind(), "infer");
  EXPECT_EQ(start.deployment(), "digits");
  EXPECT_EQ(start.model_manifest(), "model");
  EXPECT_EQ(start.inputs_size(), 2);
  EXPECT_EQ(start.replica_token(), sim.state().deployments.at("digits").replica_token());
  EXPECT_THAT(start.replica_token(), SizeIs(64));
  sim.Started("deploy-digits.n0");
  EXPECT_THAT(sim.state().Routes("digits"), IsEmpty());
  sim.Ready("deploy-digits.n0", 9001);
  ASSERT_THAT(sim.state().Routes("digits"), SizeIs(1));
  EXPECT_EQ(sim.state().Routes("digits")[0].port, 9001);
  EXPECT_TRUE(sim.state().ObjectInUse("weights"));
}

TEST(Deployments, DeadReplicaIsReplacedAtOnceThenWithBackoff) {
  Sim sim;
  sim.Hello("w1", 2);
  sim.On(Deploy(1));
  sim.Started("deploy-digits.n0");
  sim.Ready("deploy-digits.n0", 9001);
  sim.Finish("deploy-digits.n0", "INTERNAL", "", 9);
  EXPECT_THAT(sim.state().Routes("digits"), IsEmpty());
  ASSERT_THAT(sim.out.starts, SizeIs(1));
  EXPECT_EQ(sim.out.starts[0].second.task_id(), "deploy-digits.n1");
  sim.Started("deploy-digits.n1");
  sim.Finish("deploy-digits.n1", "DATA_LOSS", "weights are corrupt");
  EXPECT_THAT(sim.out.starts, IsEmpty()) << "back-off";
  EXPECT_EQ(sim.state().deployments.at("digits").restarts(), 2u);
  EXPECT_THAT(sim.state().deployments.at("digits").error(), HasSubstr("weights are corrupt"));
  sim.Pass(1'000);
  EXPECT_NE(sim.state().FindTask("deploy-digits.n2"), nullptr);
  sim.Finish("deploy-digits.n2", "OK");
  sim.Pass(1'999);
  EXPECT_EQ(sim.state().FindTask("deploy-digits.n3"), nullptr);
  sim.Pass(1);
  EXPECT_NE(sim.state().FindTask("deploy-digits.n3"), nullptr);
}

TEST(Deployments, LostWorkerMovesItsReplica) {
  Sim sim;
  sim.Hello("w1");
  sim.On(Deploy(1));
  sim.Started("deploy-digits.n0");
  sim.Ready("deploy-digits.n0", 9001);
  sim.Hello("w2");
  sim.Lose("w1");
  ASSERT_THAT(sim.out.starts, SizeIs(1));
  EXPECT_EQ(sim.out.starts[0].first, "w2");
}

TEST(Deployments, ReplicaThatIsNeverReadyIsReplaced) {
  Sim sim;
  sim.Hello("w1");
  sim.On(Deploy(1));
  sim.Started("deploy-digits.n0");
  sim.Pass(60'000);
  sim.StopAll();
  EXPECT_NE(sim.state().FindTask("deploy-digits.n1"), nullptr);
  EXPECT_EQ(sim.state().deployments.at("digits").restarts(), 1u);
}

TEST(Deployments, ScaleUpAndDownKeepsWhatServes) {
  Sim sim;
  sim.Hello("w1", 4);
  sim.On(Deploy(1));
  sim.Started("deploy-digits.n0");
  sim.Ready("deploy-digits.n0", 9001);
  sim.On(ScaleDeployment{"digits", 3});
  EXPECT_THAT(sim.out.starts, SizeIs(2));
  sim.Started("deploy-digits.n2");
  sim.Ready("deploy-digits.n2", 9002);
  sim.On(ScaleDeployment{"digits", 2});
  ASSERT_THAT(sim.out.stops, SizeIs(1));
  EXPECT_EQ(sim.out.stops[0].second.task_id(), "deploy-digits.n1") << "it does not serve yet";
  sim.StopAll();
  EXPECT_THAT(sim.state().Routes("digits"), SizeIs(2));
  EXPECT_EQ(sim.state().deployments.at("digits").restarts(), 0u);
  sim.On(ScaleDeployment{"digits", 65});
  EXPECT_EQ(sim.Last().status.code(), StatusCode::kInvalidArgument);
  sim.On(ScaleDeployment{"nope", 1});
  EXPECT_EQ(sim.Last().status.code(), StatusCode::kNotFound);
}

TEST(Deployments, SaysWhatItsReplicasWaitForAndWhoHasTheSlots) {
  Sim sim;
  sim.Hello("w1", 2);
  sim.On(Deploy(1));
  const auto waits = [&] {
    return ReplicasWait(sim.state(), sim.state().deployments.at("digits"));
  };
  EXPECT_EQ(waits(), "");
  const std::string runs = sim.Submit(Sim::Train(1, 1)), waits_too = sim.Submit(Sim::Train(1, 1));
  EXPECT_EQ(WaitingReason(sim.state(), JobId(waits_too)),
            "needs 1 x 1 slots, 0 free of 2, 1 held by deployment digits");
  sim.On(ScaleDeployment{"digits", 2});
  EXPECT_TRUE(sim.Last().status.ok());
  EXPECT_EQ(waits(),
            "needs 1 x 1 slots, 0 free of 2, 1 held by deployment digits, 1 held by job " + runs);
  // Nor can it hold all slots for ever to wait for more than there are.
  sim.On(ScaleDeployment{"digits", 3});
  EXPECT_EQ(sim.Last().status.code(), StatusCode::kFailedPrecondition);
  EXPECT_THAT(sim.Last().status.message(), HasSubstr("more than this pool has at all"));
}

TEST(Deployments, DeleteStopsTheReplicasThenTheDeployment) {
  Sim sim;
  sim.Hello("w1", 2);
  sim.On(Deploy(2));
  sim.Started("deploy-digits.n0");
  sim.Ready("deploy-digits.n0", 9001);
  sim.On(DeleteDeployment{"digits"});
  EXPECT_THAT(sim.out.stops, SizeIs(2));
  EXPECT_THAT(sim.state().Routes("digits"), IsEmpty());
  sim.On(Deploy(1));
  EXPECT_EQ(sim.Last().status.code(), StatusCode::kAlreadyExists);
  sim.StopAll();
  EXPECT_THAT(sim.state().deployments, IsEmpty());
  EXPECT_FALSE(sim.state().ObjectInUse("weights"));
  sim.On(Deploy(1));
  EXPECT_TRUE(sim.Last().status.ok());
}

TEST(Deployments, OneOfTheSameNameGivesItsReplicasOtherIds) {
  Sim sim;
  sim.Hello("w1");
  sim.On(Deploy(1));
  sim.Started("deploy-digits.n0");
  sim.On(DeleteDeployment{"digits"});
  sim.Finish("deploy-digits.n0", "CANCELLED");
  EXPECT_THAT(sim.state().deployments, IsEmpty());
  sim.On(Deploy(1));
  ASSERT_THAT(sim.out.starts, SizeIs(1));
  EXPECT_EQ(sim.out.starts[0].second.task_id(), "deploy-digits.n1") << "workers remember n0's end";
  sim.On(DeleteDeployment{"digits"});
  sim.Finish("deploy-digits.n1", "CANCELLED");
  sim.TakeSnapshot();
  sim.Restart();
  sim.Hello("w1");
  sim.On(Deploy(1));
  ASSERT_THAT(sim.out.starts, SizeIs(1));
  EXPECT_EQ(sim.out.starts[0].second.task_id(), "deploy-digits.n2");
}

TEST(Deployments, ComeBeforeJobsThatWait) {
  Sim sim;
  sim.Hello("w1");
  const std::string job = sim.Submit(Sim::Train());
  sim.On(Deploy(1));
  EXPECT_THAT(sim.out.starts, IsEmpty()) << "no slot is free, and none is taken away";
  const std::string waiting = sim.Submit(Sim::Train());
  sim.RunAll(job);
  sim.Finish(job + ".a1.r0", "OK", "", 0, {}, "m");
  EXPECT_NE(sim.state().FindTask("deploy-digits.n0"), nullptr);
  EXPECT_EQ(sim.StateOf(waiting), "QUEUED");
}

TEST(Deployments, WithoutSlotsTheyShareBusyWorkers) {
  Sim sim;
  sim.Hello("w1");
  sim.Hello("w2");
  sim.Submit(Sim::Train(2, 2));
  sim.On(Deploy(2, 0));
  ASSERT_THAT(sim.out.starts, SizeIs(2));
  EXPECT_NE(sim.out.starts[0].first, sim.out.starts[1].first);
  EXPECT_EQ(sim.out.starts[0].second.slots(), 1u) << "a thread it needs";
}

TEST(Deployments, ItsWorkerIsToldWhetherAReplicaHasASlotOfItsOwn) {
  for (const int slots : {0, 1}) {
    Sim sim;
    sim.Hello("w1");
    sim.On(Deploy(1, slots));
    ASSERT_THAT(sim.out.starts, SizeIs(1));
    EXPECT_EQ(sim.out.starts[0].second.slots(), 1u) << "its threads";
    EXPECT_EQ(sim.out.starts[0].second.no_slot(), slots == 0);
  }
}

TEST(Deployments, NoneGoesToAWorkerThatHasNotComeBack) {
  for (const int slots : {0, 1}) {
    Sim sim;
    sim.Hello("w1");
    sim.Restart();
    sim.On(Deploy(1, slots));
    EXPECT_THAT(sim.out.starts, IsEmpty()) << slots;
    sim.Hello("w1");
    EXPECT_THAT(sim.out.starts, SizeIs(1)) << slots;
  }
}

TEST(Deployments, RefusedWhenThePoolIsTooSmallOrTheNameTaken) {
  Sim sim;
  sim.Hello("w1", 2);
  sim.On(Deploy(3));
  EXPECT_EQ(sim.Last().status.code(), StatusCode::kFailedPrecondition);
  sim.On(Deploy(2));
  EXPECT_TRUE(sim.Last().status.ok());
  sim.On(Deploy(2));
  EXPECT_TRUE(sim.Last().existed);
  CreateDeployment other = Deploy(2);
  other.spec.max_batch = 7;
  sim.On(other);
  EXPECT_EQ(sim.Last().status.code(), StatusCode::kAlreadyExists);
  EXPECT_THAT(sim.Last().status.message(), HasSubstr("with another max_batch (7 now, "));
  other = Deploy(2);
  other.spec.model = "digits@prod";
  other.model = "digits@2";
  other.model_manifest = "model2";
  sim.On(other);
  EXPECT_EQ(sim.Last().status.code(), StatusCode::kAlreadyExists);
  EXPECT_THAT(sim.Last().status.message(),
              HasSubstr("with another model (digits@prod is digits@2 now, digits@1 is served)"));
  CreateDeployment unnamed = Deploy(1);
  unnamed.spec.name = "";
  sim.On(unnamed);
  EXPECT_EQ(sim.Last().status.code(), StatusCode::kInvalidArgument);
}

TEST(Deployments, ToDeployItAgainIsToScaleIt) {
  Sim sim;
  sim.Hello("w1", 2);
  sim.On(Deploy(2));
  const auto replicas = [&] { return sim.state().deployments.at("digits").replicas(); };
  sim.On(ScaleDeployment{"digits", 1});
  sim.On(Deploy(1));  // as it is
  EXPECT_TRUE(sim.Last().status.ok()) << sim.Last().status.ToString();
  EXPECT_TRUE(sim.out.records.empty());
  sim.On(Deploy(2));  // as it was at first
  EXPECT_TRUE(sim.Last().status.ok()) << sim.Last().status.ToString();
  EXPECT_TRUE(sim.Last().existed);
  EXPECT_EQ(replicas(), 2u);
  // By another name of the same version.
  CreateDeployment same = Deploy(1);
  same.spec.model = "digits@prod";
  sim.On(same);
  EXPECT_TRUE(sim.Last().status.ok()) << sim.Last().status.ToString();
  EXPECT_EQ(replicas(), 1u);
}

TEST(Deployments, RestartOfTheCoordinatorKeepsThemServing) {
  Sim sim;
  sim.Hello("w1");
  sim.On(Deploy(1));
  sim.Started("deploy-digits.n0");
  sim.Ready("deploy-digits.n0", 9001);
  const std::string token = sim.state().deployments.at("digits").replica_token();
  sim.Restart();
  EXPECT_THAT(sim.state().Routes("digits"), SizeIs(1));
  sim.Hello("w1", 1, "i1", {"deploy-digits.n0"});
  sim.Pass(60'000);
  EXPECT_THAT(sim.state().Routes("digits"), SizeIs(1));
  EXPECT_EQ(sim.state().deployments.at("digits").replica_token(), token);
}

TEST(Catalog, VersionsAliasesAndReferences) {
  Sim sim;
  sim.On(RegisterModel{"digits", "m1", {"m1", "w1"}, {{"test/accuracy", 0.9}}});
  EXPECT_EQ(sim.Last().id, "digits@1");
  sim.On(RegisterModel{"digits", "m1", {"m1", "w1"}, {}});
  EXPECT_TRUE(sim.Last().existed);
  sim.On(RegisterModel{"digits", "m2", {"m2"}, {}});
  EXPECT_EQ(sim.Last().id, "digits@2");
  sim.On(SetAlias{"digits", "prod", 1});
  EXPECT_EQ(sim.Last().id, "digits@1");
  sim.On(SetAlias{"digits", "7", 1});
  EXPECT_EQ(sim.Last().status.code(), StatusCode::kInvalidArgument);
  for (const uint32_t none : {0, 3}) {
    sim.On(SetAlias{"digits", "prod", none});
    EXPECT_EQ(sim.Last().status.code(), StatusCode::kNotFound) << none;
  }
  const State& state = sim.state();
  EXPECT_EQ(state.FindModel("model", "digits")->name, "digits@2");
  EXPECT_EQ(state.FindModel("model", "digits@prod")->version->manifest(), "m1");
  EXPECT_EQ(state.FindModel("model", "digits@2")->version->manifest(), "m2");
  for (const char* bad : {"digits@3", "digits@0", "digits@beta", "cats"}) {
    EXPECT_EQ(state.FindModel("model", bad).status().code(), StatusCode::kNotFound) << bad;
  }
  EXPECT_THAT(state.FindModel("model.from", "cats").status().message(),
              testing::AllOf(HasSubstr("model.from"), HasSubstr("digits")));
  sim.Restart();
  EXPECT_EQ(sim.state().FindModel("model", "digits@prod")->name, "digits@1");
}

TEST(Catalog, SameDataGivesTheSameVersion) {
  Sim sim;
  CreateDataset create{"digits", "d1", {}, 1797};
  sim.On(create);
  EXPECT_EQ(sim.Last().id, "digits@1");
  sim.On(create);
  EXPECT_TRUE(sim.Last().existed);
  create.manifest = "d2";
  sim.On(create);
  EXPECT_EQ(sim.Last().id, "digits@2");
  EXPECT_EQ(sim.state().FindDataset("dataset.name", "digits")->version->manifest(), "d2");
  EXPECT_EQ(sim.state().FindDataset("dataset.name", "digits@1")->version->rows(), 1797);
  EXPECT_EQ(sim.state().FindDataset("dataset.name", "digits@3").status().code(),
            StatusCode::kNotFound);
  create.name = "bad name";
  sim.On(create);
  EXPECT_EQ(sim.Last().status.code(), StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace lepton::scheduler
