// Finished jobs are kept until there are too many.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/scheduler/core/sim.h"

namespace lepton::scheduler {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class ForgetTest : public testing::Test {
 protected:
  ForgetTest() : sim_(Keep(2)) { sim_.Hello("w1"); }

  static ReactorOptions Keep(size_t jobs) {
    ReactorOptions options = Sim::Options();
    options.keep_finished_jobs = jobs;
    return options;
  }
  std::string Submit(const std::string& key = "") {
    SubmitJob submit;
    submit.spec = Sim::Train();
    submit.spec.register_as.clear();  // a model would keep what the job made
    submit.inputs = Sim::Inputs();
    submit.idempotency_key = key;
    sim_.On(submit);
    return sim_.Last().id;
  }
  // A job with a checkpoint and a result of its own.
  std::string Done(const std::string& key = "") {
    const std::string id = Submit(key), task = id + ".a1.r0";
    sim_.Run(task);
    sim_.Checkpoint(task, 5, "checkpoint of " + id);
    sim_.Finish(task, "OK", "", 0, {}, "model of " + id);
    return id;
  }
  std::vector<std::string> Jobs() const {
    std::vector<std::string> ids;
    for (const auto& [id, job] : sim_.state().jobs) ids.push_back(id.str());
    return ids;
  }

  Sim sim_;
};

TEST_F(ForgetTest, TheOnesThatEndedFirstGoWithWhatTheyHeld) {
  Done();
  Done();
  EXPECT_THAT(Jobs(), ElementsAre("j1", "j2"));
  EXPECT_TRUE(sim_.state().ObjectInUse("model of j1"));
  Done();
  EXPECT_THAT(Jobs(), ElementsAre("j2", "j3"));
  EXPECT_THAT(sim_.out.forgotten_jobs, ElementsAre("j1"));
  EXPECT_THAT(sim_.out.forgotten, Contains("model of j1"));
  EXPECT_THAT(sim_.out.forgotten, Contains("checkpoint of j1"));
  EXPECT_FALSE(sim_.state().ObjectInUse("model of j1"));
  EXPECT_FALSE(sim_.state().ObjectInUse("checkpoint of j1"));
  EXPECT_TRUE(sim_.state().ObjectInUse("model of j2"));
}

TEST_F(ForgetTest, WhoRunsIsKeptHoweverOld) {
  const std::string old = Submit();  // holds the only slot
  sim_.Run(old + ".a1.r0");
  for (int i = 0; i < 5; ++i) {
    const std::string id = Submit();
    sim_.On(CancelJob{JobId(id), "not needed"});
    sim_.Pass(1);
  }
  EXPECT_THAT(Jobs(), ElementsAre("j1", "j5", "j6"));
  EXPECT_EQ(sim_.StateOf(old), "RUNNING");
}

TEST_F(ForgetTest, TheyStayForgottenAndTheirNumbersAreNotUsedAgain) {
  for (int i = 0; i < 4; ++i) Done();
  sim_.Restart();
  EXPECT_THAT(Jobs(), ElementsAre("j3", "j4"));
  sim_.TakeSnapshot();
  sim_.Restart();
  EXPECT_THAT(Jobs(), ElementsAre("j3", "j4"));
  sim_.Hello("w1");
  EXPECT_EQ(Submit(), "j5");
}

TEST_F(ForgetTest, AKeyLastsAsLongAsItsJob) {
  Done("mine");
  Done();
  EXPECT_EQ(Submit("mine"), "j1");
  EXPECT_TRUE(sim_.Last().existed);
  Done();
  EXPECT_EQ(Submit("mine"), "j4");
  EXPECT_FALSE(sim_.Last().existed);
}

TEST_F(ForgetTest, WhatAModelHasOfItStays) {
  SubmitJob submit;
  submit.spec = Sim::Train();
  submit.spec.register_as = "digits";
  submit.inputs = Sim::Inputs();
  sim_.On(submit);
  sim_.Run("j1.a1.r0");
  sim_.Finish("j1.a1.r0", "OK", "", 0, {}, "the model");
  Done();
  Done();
  EXPECT_THAT(Jobs(), Not(Contains("j1")));
  EXPECT_TRUE(sim_.state().ObjectInUse("the model"));
}

TEST_F(ForgetTest, WhoAsksForOneIsToldThatItWasThere) {
  for (int i = 0; i < 3; ++i) Done();
  EXPECT_THAT(sim_.state().NoJob(JobId("j1")).message(), HasSubstr("history.jobs"));
  EXPECT_EQ(sim_.state().NoJob(JobId("j9")).message(), "no job j9");
  EXPECT_EQ(sim_.state().NoJob(JobId("mine")).message(), "no job mine");
}

TEST(ForgetManyTest, ALowerLimitIsReachedInPortionsAndNoneMeansAll) {
  for (const size_t keep : {size_t{1}, size_t{0}}) {
    ReactorOptions options = Sim::Options();
    options.keep_finished_jobs = 0;
    Sim sim(options);
    sim.check_every = 1000;
    for (int i = 0; i < 250; ++i) {
      sim.On(CancelJob{JobId(sim.Submit(Sim::Train())), "not needed"});
    }
    EXPECT_EQ(sim.state().jobs.size(), 250u);
    sim.TakeSnapshot();
    auto state = State::Restore(sim.snapshot);
    ASSERT_TRUE(state.ok());
    options.keep_finished_jobs = keep;
    Reactor reactor(options, *std::move(state), sim.now);
    std::vector<size_t> left;
    for (int i = 0; i < 4; ++i) {
      Recorder out;
      reactor.On(Input{sim.now, 1, Tick{}}, out);
      left.push_back(reactor.state().jobs.size());
    }
    EXPECT_EQ(left, keep == 0 ? std::vector<size_t>({250, 250, 250, 250})
                              : std::vector<size_t>({150, 50, 1, 1}));
  }
}

}  // namespace
}  // namespace lepton::scheduler
