// Ranks whose GPU fails under them.
#include <gmock/gmock.h>

#include "tests/scheduler/core/sim.h"

namespace lepton::scheduler {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::SizeIs;

constexpr char kEcc[] = "work on the device: uncorrectable ECC error encountered";

TEST(DeviceFailures, AnElasticGangGoesOnWithoutTheRank) {
  Sim sim;
  for (const char* worker : {"w0", "w1", "w2"}) sim.Hello(worker);
  const std::string id = sim.Submit(Sim::Elastic(1, 3));
  sim.RunAll(id);
  sim.Progress(id + ".a1.r0", 7);
  sim.Finish(id + ".a1.r1", "DEVICE_FAILED", kEcc);
  const Gang& gang = *sim.state().FindGang(id + ".a1");
  EXPECT_THAT(gang.members(), ElementsAre(0u, 2u));
  EXPECT_EQ(sim.StateOf(id), "RUNNING");
  sim.Endpoint(id + ".a1.r0", 1);
  sim.Endpoint(id + ".a1.r2", 1);
  sim.Recovered(id + ".a1.r0", 8);
  ASSERT_THAT(sim.job(id).recoveries(), SizeIs(1));
  EXPECT_EQ(sim.job(id).recoveries(0).reason_code(), "DEVICE_FAILED");
  EXPECT_THAT(sim.job(id).recoveries(0).cause(), HasSubstr("rank 1 on worker w1"));
  EXPECT_THAT(sim.job(id).recoveries(0).cause(), HasSubstr("ECC"));
}

// A survivor's report of the broken group often comes first.
TEST(DeviceFailures, OneThatASurvivorToldOfFirstIsOneFault) {
  Sim sim;
  for (const char* worker : {"w0", "w1", "w2"}) sim.Hello(worker);
  const std::string id = sim.Submit(Sim::Elastic(1, 3));
  sim.RunAll(id);
  sim.Progress(id + ".a1.r0", 7);
  sim.Endpoint(id + ".a1.r0", 1, "rank 1 is gone");
  sim.Finish(id + ".a1.r1", "DEVICE_FAILED", kEcc);
  EXPECT_EQ(sim.state().FindGang(id + ".a1")->faults_in_row(), 1u);
  sim.Endpoint(id + ".a1.r2", 1, "rank 1 is gone");
  sim.Endpoint(id + ".a1.r0", 1);
  sim.Recovered(id + ".a1.r0", 8);
  EXPECT_EQ(sim.job(id).recoveries(0).reason_code(), "DEVICE_FAILED");
}

// Else the gang would take it in again and again, as fast as processes start.
TEST(DeviceFailures, ItsWorkerGetsNothingForAWhileLongerEachTime) {
  Sim sim;
  sim.Hello("w0");
  sim.Hello("w1");
  const std::string id = sim.Submit(Sim::Elastic(1, 2));
  sim.RunAll(id);
  sim.Progress(id + ".a1.r0", 7);
  const std::vector<int64_t> waits = {10'000, 20'000, 30'000, 30'000};
  uint64_t epoch = 1;
  for (size_t n = 0; n < waits.size(); ++n) {
    const int seats = static_cast<int>(n) + 2;
    sim.Finish(id + ".a1.r" + std::to_string(seats - 1), "DEVICE_FAILED", kEcc);
    sim.Endpoint(id + ".a1.r0", epoch++);
    sim.Recovered(id + ".a1.r0", 7 + epoch);
    sim.Pass(waits[n] - 1);
    EXPECT_THAT(sim.state().FindGang(id + ".a1")->tasks(), SizeIs(seats));
    sim.Pass(1);
    ASSERT_THAT(sim.state().FindGang(id + ".a1")->tasks(), SizeIs(seats + 1));
    const std::string joiner = id + ".a1.r" + std::to_string(seats);
    sim.Started(joiner);  // which says nothing of the device yet
    sim.Endpoint(joiner);
    sim.Endpoint(id + ".a1.r0", epoch++);
    sim.Recovered(id + ".a1.r0", 7 + epoch);
  }
}

// As soon as the process is gone, and once.
TEST(DeviceFailures, ItsWorkerIsPutOffBeforeWhatTheRankLeftHasCome) {
  Sim sim;
  sim.Hello("w0");
  sim.Hello("w1");
  const std::string id = sim.Submit(Sim::Elastic(1, 2));
  sim.RunAll(id);
  sim.Progress(id + ".a1.r0", 7);
  sim.Gone(id + ".a1.r1", "DEVICE_FAILED");
  sim.Endpoint(id + ".a1.r0", 1);
  sim.Recovered(id + ".a1.r0", 8);
  sim.Pass(6'000);
  sim.Finish(id + ".a1.r1", "DEVICE_FAILED", kEcc);
  sim.Pass(3'999);
  EXPECT_THAT(sim.state().FindGang(id + ".a1")->tasks(), SizeIs(2));
  sim.Pass(1);
  EXPECT_THAT(sim.state().FindGang(id + ".a1")->tasks(), SizeIs(3));
}

// A GPU that failed says nothing of the host's cores.
TEST(DeviceFailures, ItsWorkerGoesOnTakingOtherWork) {
  Sim sim;
  sim.Hello("w0", 1, "i1", {}, "", 1);
  spec::JobSpec on_gpu = Sim::Train();
  on_gpu.resources.device = "cuda";
  const std::string id = sim.Submit(on_gpu);
  sim.RunAll(id);
  sim.Finish(id + ".a1.r0", "DEVICE_FAILED", kEcc);
  const std::string on_host = sim.Submit(Sim::Train());
  EXPECT_EQ(sim.StateOf(on_host), "STARTING");
  sim.RunAll(on_host);
  sim.Pass(3'000);
  sim.Finish(on_host + ".a1.r0", "OK", "", 0, {}, "m");
  EXPECT_THAT(sim.Living(id), SizeIs(0)) << "that it ended well says nothing of the GPU";
  sim.Pass(10'000);
  EXPECT_THAT(sim.Living(id), SizeIs(1));
}

// Nor that it has a place for them: where one is refused, none is put for a while, as on any
// worker.
TEST(DeviceFailures, ItsWorkerIsPutOffForWhatItRefusesToo) {
  Sim sim;
  sim.Hello("w0", 1, "i1", {}, "", 1);
  spec::JobSpec on_gpu = Sim::Train();
  on_gpu.resources.device = "cuda";
  const std::string failed = sim.Submit(on_gpu);
  sim.RunAll(failed);
  sim.Finish(failed + ".a1.r0", "DEVICE_FAILED", kEcc);
  const std::string id = sim.Submit(Sim::Train());
  wire::TaskReport report;
  report.mutable_finished()->set_code("UNAVAILABLE");
  report.mutable_finished()->set_refused(true);
  sim.Report(id + ".a1.r0", std::move(report));
  sim.out.starts.clear();
  sim.On(CancelJob{JobId(failed), "asked"});
  sim.Pass(900);
  const std::string next = sim.Submit(Sim::Train());
  EXPECT_THAT(sim.out.starts, SizeIs(0));
  sim.Pass(1'000);
  EXPECT_THAT(sim.out.starts, SizeIs(1));
}

// Of any gang: here nobody goes on without the rank, and its last report starts the job again.
TEST(DeviceFailures, SoIsThatOfAGangThatStartsAgain) {
  Sim sim;
  sim.Hello("w0");
  const std::string id = sim.Submit(Sim::Train());
  sim.RunAll(id);
  sim.Hello("w1");
  sim.Gone(id + ".a1.r0", "DEVICE_FAILED");
  sim.Finish(id + ".a1.r0", "DEVICE_FAILED", kEcc);
  sim.Pass(2'000);
  EXPECT_EQ(sim.state().FindTask(id + ".a2.r0")->worker_id(), "w1") << "w0 is put off";
}

// A peer that was cut off by it says so first.
TEST(DeviceFailures, ItIsNotBlamedOnThePeerThatTellsFirst) {
  Sim sim;
  sim.Hello("w0");
  sim.Hello("w1");
  const std::string id = sim.Submit(Sim::Train(2, 2));
  sim.RunAll(id);
  sim.Finish(id + ".a1.r0", "ABORTED", "rank 1 is gone");
  sim.Finish(id + ".a1.r1", "DEVICE_FAILED", kEcc);
  EXPECT_EQ(sim.job(id).worker_restarts(), 1u);
  EXPECT_EQ(sim.job(id).task_restarts(), 0u);
  EXPECT_EQ(sim.job(id).reason_code(), "DEVICE_FAILED");
}

TEST(DeviceFailures, WhatOneWorkerDoesAloneStartsAgainElsewhereAsForALostWorker) {
  Sim sim;
  sim.Hello("w0");
  const std::string id = sim.Submit(Sim::Train());
  sim.RunAll(id);
  sim.Hello("w1");
  sim.Finish(id + ".a1.r0", "DEVICE_FAILED", kEcc);
  EXPECT_EQ(sim.StateOf(id), "RECOVERING");
  EXPECT_EQ(sim.job(id).worker_restarts(), 1u);
  EXPECT_EQ(sim.job(id).task_restarts(), 0u);
  sim.Pass(2'000);
  ASSERT_THAT(sim.Living(id), SizeIs(1));
  EXPECT_EQ(sim.state().FindTask(id + ".a2.r0")->worker_id(), "w1") << "w0 is put off";
}

}  // namespace
}  // namespace lepton::scheduler
