#include <gmock/gmock.h>

#include <nlohmann/json.hpp>
#include <set>

#include "scheduler/core/best_trial.h"
#include "tests/scheduler/core/sim.h"

namespace lepton::scheduler {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr char kMetric[] = "validation/accuracy";

// A trial's quality, known in advance: the higher its number, the better.
double Quality(int trial) {
  return 0.5 + 0.01 * trial;
}

// Lets every living trial run to its budget, in task order, until the job is over. Returns the task
// ids in the order in which they were started.
std::vector<std::string> RunSearch(Sim& sim, const std::string& id) {
  std::vector<std::string> order;
  for (int round = 0; round < 200 && !IsTerminal(sim.job(id).state()); ++round) {
    const std::vector<std::string> living = sim.Living(id);
    if (living.empty()) {
      sim.Pass(1'000);
      continue;
    }
    const std::string task = living.front();
    const int trial = sim.state().GangOfTask(task)->trial();
    order.push_back(task);
    sim.Run(task);
    sim.Checkpoint(task, 1, "c." + task);
    sim.Finish(task, "OK", "", 0, {{kMetric, Quality(trial)}}, "m." + task);
  }
  return order;
}

TEST(Trials, RandomSearchRegistersTheBest) {
  Sim sim;
  sim.Hello("w1", 2);
  const std::string id = sim.Submit(Sim::Tune("random", 4));
  ASSERT_THAT(sim.out.starts, SizeIs(2)) << "as many as there are slots";
  const auto spec =
      spec::JobSpecFromJson(nlohmann::json::parse(sim.out.starts[0].second.spec_json()));
  ASSERT_TRUE(spec.ok()) << spec.status().ToString();
  EXPECT_EQ(spec->kind, spec::JobKind::kTrain);
  EXPECT_EQ(spec->labels.at("lepton.stop_at_epoch"), "9");
  EXPECT_EQ(spec->epochs, 9);
  EXPECT_NE(spec->optimizer.lr, 1e-3) << "the searcher's, not the default";
  EXPECT_EQ(sim.out.starts[0].second.kind(), "trial");
  EXPECT_EQ(sim.StateOf(id), "STARTING");
  RunSearch(sim, id);
  EXPECT_EQ(sim.StateOf(id), "SUCCEEDED");
  EXPECT_EQ(sim.job(id).trials_size(), 4);
  EXPECT_EQ(sim.job(id).best_trial(), 3);
  EXPECT_EQ(sim.job(id).result().model_manifest(), "m.j1.t3.a1.r0");
  EXPECT_EQ(sim.job(id).model_version(), 1u);
  EXPECT_TRUE(sim.state().ObjectInUse("m.j1.t3.a1.r0.weights"));
  EXPECT_FALSE(sim.state().ObjectInUse("m.j1.t2.a1.r0.weights"));
  EXPECT_FALSE(sim.state().ObjectInUse("c.j1.t3.a1.r0"));
  EXPECT_THAT(sim.out.forgotten, testing::Contains("m.j1.t2.a1.r0.weights"));
}

TEST(Trials, AtMostMaxParallelAtOnce) {
  Sim sim;
  sim.Hello("w1", 8);
  const std::string id = sim.Submit(Sim::Tune("random", 5, 2));
  EXPECT_THAT(sim.Living(id), SizeIs(2));
  const std::string other = sim.Submit(Sim::Train());
  EXPECT_EQ(sim.StateOf(other), "STARTING") << "a search at its limit holds up nobody";
}

TEST(Trials, AshaGoesUpTheRungsAndResumesFromTheCheckpoint) {
  Sim sim;
  sim.Hello("w1");
  const std::string id = sim.Submit(Sim::Tune("asha", 9));
  std::map<int64_t, int> runs;  // by budget
  std::string resumed;
  for (int round = 0; round < 50 && !IsTerminal(sim.job(id).state()); ++round) {
    const std::vector<std::string> living = sim.Living(id);
    ASSERT_THAT(living, SizeIs(1));
    const Gang* gang = sim.state().GangOfTask(living[0]);
    const int trial = gang->trial();
    const int64_t budget = sim.job(id).trials(trial).budget();
    ++runs[budget];
    const bool fresh = budget == 1;
    EXPECT_EQ(gang->resume_checkpoint().empty(), fresh) << living[0];
    sim.Run(living[0]);
    sim.Checkpoint(living[0], static_cast<uint64_t>(budget), "c." + living[0]);
    sim.Finish(living[0], "OK", "", 0, {{kMetric, Quality(trial)}}, "m." + living[0]);
  }
  EXPECT_EQ(sim.StateOf(id), "SUCCEEDED");
  EXPECT_EQ(runs[1], 9);
  EXPECT_GE(runs[3], 3);
  EXPECT_GE(runs[9], 1);
  EXPECT_EQ(sim.job(id).best_trial(), 8);
  EXPECT_EQ(sim.job(id).trials(8).state(), TRIAL_DONE);
}

TEST(Trials, SameSeedSameSuggestionsEvenOverRestarts) {
  auto run = [](bool restart) {
    Sim sim;
    sim.Hello("w1");
    const std::string id = sim.Submit(Sim::Tune("asha", 9));
    std::vector<std::string> trace;
    for (int round = 0; round < 50 && !IsTerminal(sim.job(id).state()); ++round) {
      const std::string task = sim.Living(id).at(0);
      const int trial = sim.state().GangOfTask(task)->trial();
      trace.push_back(task + sim.job(id).trials(trial).values().at("optimizer.lr"));
      if (restart) {
        if (round % 3 == 0) sim.TakeSnapshot();
        sim.Restart();
        sim.Hello("w1", 1, "i1", {task});
      }
      sim.Run(task);
      sim.Finish(task, "OK", "", 0, {{kMetric, Quality(trial * 7 % 5)}}, "m." + task);
    }
    EXPECT_EQ(sim.StateOf(id), "SUCCEEDED");
    return trace;
  };
  const auto once = run(false);
  EXPECT_EQ(once, run(true));
  EXPECT_EQ(std::set<std::string>(once.begin(), once.end()).size(), once.size());
}

// Another CPU's exp and log may differ in the last bit: what is tried is what the journal says.
TEST(Trials, AJournalWhoseValuesDifferInTheLastDigitIsReplayedAndGoneOnWith) {
  Sim sim;
  sim.Hello("w1");
  const std::string id = sim.Submit(Sim::Tune("asha", 9));
  std::string task;
  for (int trial = 0; trial < 3; ++trial) {
    ASSERT_THAT(sim.Living(id), SizeIs(1));
    task = sim.Living(id)[0];
    sim.Run(task);
    sim.Checkpoint(task, 1, "c." + task);
    if (trial < 2) sim.Finish(task, "OK", "", 0, {{kMetric, Quality(trial)}}, "m." + task);
  }
  State state;
  std::vector<std::string> values;
  for (const std::string& bytes : sim.journal) {
    Record record;
    ASSERT_TRUE(record.ParseFromString(bytes));
    if (record.has_search_stepped() && record.search_stepped().step().ask()) {
      auto& given = *record.mutable_search_stepped()->mutable_step()->mutable_values();
      std::string& value = given.at("optimizer.lr");
      value.back() = value.back() == '1' ? '2' : '1';
      values.push_back(value);
    }
    const Status applied = ApplyBytes(record.SerializeAsString(), state);
    ASSERT_TRUE(applied.ok()) << applied.ToString();
  }
  ASSERT_THAT(values, SizeIs(3));
  const auto restored = State::Restore(state.Snapshot());
  ASSERT_TRUE(restored.ok()) << restored.status().ToString();

  // The third is the best of three, and goes up with the values that it has had.
  Reactor reactor(Sim::Options(), std::move(state), sim.now);
  Recorder out;
  WorkerHello hello;
  hello.hello = sim.state().workers.at(WorkerId("w1")).hello();
  hello.hello.add_running()->set_task_id(task);
  reactor.On(Input{sim.now, 0, hello}, out);
  TaskReported reported{WorkerId("w1"), {}};
  reported.report.set_task_id(task);
  reported.report.set_seq(100);
  reported.report.mutable_finished()->set_code("OK");
  reported.report.mutable_finished()->set_model_manifest("m");
  (*reported.report.mutable_finished()->mutable_metrics())[kMetric] = Quality(2);
  reactor.On(Input{sim.now, 0, reported}, out);
  const Trial& third = reactor.state().jobs.at(JobId(id)).trials(2);
  EXPECT_EQ(third.budget(), 3);
  EXPECT_EQ(third.values().at("optimizer.lr"), values[2]);
}

TEST(Trials, FailedTrialIsRecordedAndTheSearchGoesOn) {
  Sim sim;
  sim.Hello("w1");
  const std::string id = sim.Submit(Sim::Tune("random", 3));
  sim.RunAll(id);
  sim.Finish(sim.Living(id).at(0), "FAILED_PRECONDITION", "loss is NaN");
  EXPECT_EQ(sim.job(id).trials(0).state(), TRIAL_FAILED);
  EXPECT_THAT(sim.job(id).trials(0).error(), HasSubstr("loss is NaN"));
  sim.RunAll(id);
  sim.Finish(sim.Living(id).at(0), "OK", "", 0, {{"another/metric", 1}}, "m");
  EXPECT_EQ(sim.job(id).trials(1).state(), TRIAL_FAILED) << "without the metric";
  RunSearch(sim, id);
  EXPECT_EQ(sim.StateOf(id), "SUCCEEDED");
  EXPECT_EQ(sim.job(id).best_trial(), 2);
}

TEST(Trials, JobFailsOnlyWhenAllTrialsDo) {
  Sim sim;
  sim.Hello("w1");
  const std::string id = sim.Submit(Sim::Tune("asha", 2));
  for (int trial = 0; trial < 2; ++trial) {
    sim.RunAll(id);
    sim.Finish(sim.Living(id).at(0), "INVALID_ARGUMENT", "lr too large");
  }
  EXPECT_EQ(sim.StateOf(id), "FAILED");
  EXPECT_THAT(sim.job(id).error(), HasSubstr("none of 2 trials"));
  EXPECT_THAT(sim.job(id).error(), HasSubstr("lr too large"));
}

TEST(Trials, LostWorkerRequeuesItsTrial) {
  Sim sim;
  sim.Hello("w1");
  sim.Hello("w2");
  const std::string id = sim.Submit(Sim::Tune("random", 2));
  sim.RunAll(id);
  const std::string hit = "j1.t0.a1.r0";
  sim.Checkpoint(hit, 40, "c40");
  const std::string worker = sim.state().FindTask(hit)->worker_id();
  sim.Lose(worker);
  EXPECT_EQ(sim.StateOf(id), "RUNNING") << "the other trial goes on";
  EXPECT_EQ(sim.job(id).trials(0).state(), TRIAL_PENDING);
  EXPECT_EQ(sim.job(id).trials(0).worker_restarts(), 1u);
  EXPECT_EQ(sim.Living(id), std::vector<std::string>{"j1.t1.a1.r0"});
  sim.Hello("w3");
  EXPECT_THAT(sim.out.starts, IsEmpty()) << "back-off";
  sim.Pass(1'000);
  ASSERT_THAT(sim.out.starts, SizeIs(1));
  EXPECT_EQ(sim.out.starts[0].second.task_id(), "j1.t0.a2.r0");
  EXPECT_EQ(sim.out.starts[0].second.resume_checkpoint(), "c40");
  RunSearch(sim, id);
  EXPECT_EQ(sim.StateOf(id), "SUCCEEDED");
  EXPECT_EQ(sim.job(id).trials_size(), 2);
}

TEST(Trials, RestartLimitFailsTheTrialNotTheJob) {
  Sim sim;
  sim.Hello("w1");
  spec::JobSpec spec = Sim::Tune("random", 2, 1);
  spec.restart.max = 1;
  const std::string id = sim.Submit(spec);
  for (int attempt = 1; attempt <= 2; ++attempt) {
    const std::string task = "j1.t0.a" + std::to_string(attempt) + ".r0";
    while (sim.state().FindTask(task) == nullptr) {
      // Meanwhile the slot goes to trial 1.
      const std::vector<std::string> living = sim.Living(id);
      ASSERT_LE(living.size(), 1u);
      if (living.empty()) {
        sim.Pass(1'000);
      } else {
        sim.Run(living[0]);
        sim.Finish(living[0], "OK", "", 0, {{kMetric, 0.7}}, "m");
      }
    }
    sim.Run(task);
    sim.Finish(task, "INTERNAL", "oops");
  }
  EXPECT_EQ(sim.job(id).trials(0).state(), TRIAL_FAILED);
  EXPECT_EQ(sim.StateOf(id), "SUCCEEDED");
  EXPECT_EQ(sim.job(id).best_trial(), 1);
}

TEST(Trials, CancelStopsEveryTrialAndLetsTheLosersGo) {
  Sim sim;
  sim.Hello("w1", 2);
  const std::string id = sim.Submit(Sim::Tune("asha", 9));
  sim.RunAll(id);
  sim.Checkpoint("j1.t0.a1.r0", 1, "c0");
  sim.Finish("j1.t0.a1.r0", "OK", "", 0, {{kMetric, 0.6}}, "m0");
  sim.On(CancelJob{JobId(id), "asked"});
  EXPECT_EQ(sim.StateOf(id), "STOPPING");
  sim.StopAll();
  EXPECT_EQ(sim.StateOf(id), "CANCELLED");
  EXPECT_FALSE(sim.state().ObjectInUse("c0"));
  EXPECT_TRUE(sim.state().ObjectInUse("m0")) << "the best so far";
  EXPECT_EQ(sim.job(id).result().model_manifest(), "m0") << "and it can be fetched";
}

TEST(Trials, WhatAPromotedTrialReachedBeforeIsTheBestOfACancelledSearchToo) {
  Sim sim;
  sim.Hello("w1", 2);
  const std::string id = sim.Submit(Sim::Tune("asha", 9));
  const auto promoted = [&] {
    const Trial& trial = sim.job(id).trials(0);
    return trial.state() == TRIAL_RUNNING && trial.has_value();
  };
  for (int round = 0; round < 9 && !promoted(); ++round) {
    sim.RunAll(id);
    const std::string task = "j1.t" + std::to_string(round) + ".a1.r0";
    sim.Finish(task, "OK", "", 0, {{kMetric, 0.9 - 0.1 * round}}, "m" + std::to_string(round));
  }
  ASSERT_TRUE(promoted());
  sim.On(CancelJob{JobId(id), "asked"});
  sim.StopAll();
  EXPECT_EQ(sim.StateOf(id), "CANCELLED");
  EXPECT_EQ(sim.job(id).best_trial(), 0);
  EXPECT_EQ(sim.job(id).result().model_manifest(), "m0");
  EXPECT_EQ(sim.job(id).trials(0).state(), TRIAL_DONE);
}

TEST(Trials, OfEqualsTheBestTrainedLongerAndOneThatFailedBehindItsValueIsTheLast) {
  Job job;
  const auto add = [&job](double value, int64_t reached, TrialState state) {
    Trial& trial = *job.add_trials();
    trial.set_index(job.trials_size() - 1);
    trial.set_state(state);
    trial.set_has_value(true);
    trial.set_value(value);
    trial.set_reached(reached);
    trial.mutable_result()->set_model_manifest("m");
  };
  EXPECT_EQ(BestTrial(job, true), -1);
  add(0.99, 10, TRIAL_FAILED);
  EXPECT_EQ(BestTrial(job, true), 0) << "better than none";
  add(0.5, 10, TRIAL_DONE);
  EXPECT_EQ(BestTrial(job, true), 1);
  add(0.98, 10, TRIAL_PAUSED);
  add(0.98, 90, TRIAL_DONE);
  add(0.98, 90, TRIAL_DONE);
  EXPECT_EQ(BestTrial(job, true), 3);
  EXPECT_EQ(BestTrial(job, false), 1);
}

// Each value is fine alone; 0.9 of the rows for training and 0.5 for validation are not.
TEST(Trials, TrialWhoseValuesMakeNoSpecFailsWithoutStarting) {
  Sim sim;
  sim.Hello("w1");
  spec::JobSpec spec = Sim::Tune("random", 12);
  spec.dataset.split.train = 0.5;
  spec.dataset.split.validation = 0.1;
  spec::Dimension train, validation;
  train.path = "dataset.split.train";
  validation.path = "dataset.split.validation";
  train.type = validation.type = spec::Dimension::Type::kChoice;
  train.choices = {"0.5", "0.9"};
  validation.choices = {"0.5", "0.1"};
  spec.search->space = {train, validation};
  const std::string id = sim.Submit(spec);
  RunSearch(sim, id);
  EXPECT_EQ(sim.StateOf(id), "SUCCEEDED");
  int refused = 0;
  for (const Trial& trial : sim.job(id).trials()) {
    const bool bad = trial.values().at("dataset.split.train") == "0.9" &&
                     trial.values().at("dataset.split.validation") == "0.5";
    EXPECT_EQ(trial.state(), bad ? TRIAL_FAILED : TRIAL_DONE);
    EXPECT_EQ(trial.attempt(), bad ? 0u : 1u);
    if (bad) {
      EXPECT_THAT(trial.error(), HasSubstr("dataset.split"));
    }
    refused += bad ? 1 : 0;
  }
  EXPECT_GT(refused, 0);
}

TEST(Trials, SpecThatWouldNotSurviveTheJournalIsRefused) {
  Sim sim;
  spec::JobSpec spec = Sim::Train();
  spec.optimizer.lr = -1;
  EXPECT_EQ(sim.TrySubmit(spec).code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(sim.journal, IsEmpty());
}

TEST(Trials, OneOfSeveralRanksGoesOnWithoutADeadOne) {
  Sim sim;
  sim.Hello("w0");
  sim.Hello("w1");
  spec::JobSpec spec = Sim::Tune("random", 1);
  spec.elastic.recovery = "in_place";
  spec.resources.max_workers = 2;
  const std::string id = sim.Submit(spec);
  sim.RunAll(id);
  const std::string gang_id = sim.state().GangOfTask(sim.Living(id)[0])->id();
  sim.Progress(gang_id + ".r0", 3);
  sim.Checkpoint(gang_id + ".r0", 5, "c5");
  sim.Finish(gang_id + ".r0", "ABORTED", "", 9);
  sim.Endpoint(gang_id + ".r1", 1, "rank 0 died");
  const Gang& gang = *sim.state().FindGang(gang_id);
  EXPECT_EQ(gang.epoch(), 2u);
  EXPECT_EQ(gang.members_size(), 1);
  EXPECT_EQ(gang.tasks_size(), 2) << "no further rank";
  EXPECT_EQ(sim.job(id).trials(0).attempt(), 1u);
  // With nobody left it starts again elsewhere from its checkpoint.
  sim.Finish(gang_id + ".r1", "ABORTED", "", 9);
  sim.Pass(1'000);
  ASSERT_FALSE(sim.Living(id).empty());
  EXPECT_EQ(sim.job(id).trials(0).attempt(), 2u);
  EXPECT_EQ(sim.state().GangOfTask(sim.Living(id)[0])->resume_checkpoint(), "c5");
}

}  // namespace
}  // namespace lepton::scheduler
