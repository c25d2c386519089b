// Thousands of random inputs: after each the invariants hold and a replay ends in the same state.
// In the end the faults stop, and everything that was submitted comes to its end.
#include <gmock/gmock.h>

#include <chrono>
#include <iostream>
#include <random>

#include "scheduler/core/elastic.h"
#include "tests/scheduler/core/sim.h"

namespace lepton::scheduler {
namespace {

class Chaos {
 public:
  explicit Chaos(uint32_t seed) : random_(seed) {
    for (int i = 0; i < 4; ++i) incarnation_.push_back(1);
  }

  void Run(int steps) {
    for (int i = 0; i < steps && !testing::Test::HasFatalFailure(); ++i) {
      sim.now += Pick(2'000);
      Step();
    }
  }

  // No more faults: time passes and tasks do their work.
  void Settle() {
    sim.check_every = 10;
    for (int worker = 0; worker < 4; ++worker) {
      ++incarnation_[worker];  // a drained one is no use
      Arrive(worker);
    }
    for (const auto& [name, deployment] : sim.state().deployments) doomed_.push_back(name);
    for (const std::string& name : doomed_) sim.On(DeleteDeployment{name});
    for (int round = 0; round < 1'500 && Busy(); ++round) {
      for (const std::string& task : sim.Living()) Work(task);
      sim.now += 1'000;
      sim.On(Tick{});
      if (testing::Test::HasFatalFailure()) return;
    }
  }

  Sim sim;

 private:
  int Pick(int below) { return static_cast<int>(random_() % static_cast<uint32_t>(below)); }
  std::string Name(int worker) { return "w" + std::to_string(worker); }

  void Arrive(int worker) {
    // It knows of the tasks that it had, if it is the same process.
    std::vector<std::string> running;
    const auto it = sim.state().tasks_of_worker.find(WorkerId(Name(worker)));
    if (it != sim.state().tasks_of_worker.end()) {
      for (const std::string& task : it->second) {
        if (Pick(20) != 0) running.push_back(task);
      }
    }
    sim.Hello(Name(worker), 1 + static_cast<uint32_t>(worker % 3),
              "i" + std::to_string(incarnation_[worker]), running);
  }

  // Jobs that wait for more workers than will ever come wait for ever.
  bool Busy() const {
    for (const JobId& id : sim.state().active) {
      if (sim.state().jobs.at(id).state() != JOB_QUEUED) return true;
    }
    return !sim.state().gangs.empty();
  }

  std::string AnyTask() {
    const std::vector<std::string> living = sim.Living();
    return living.empty() ? "" : living[static_cast<size_t>(Pick(static_cast<int>(living.size())))];
  }

  // The next thing that a healthy task does.
  void Work(const std::string& id) {
    const Task* task = sim.state().FindTask(id);
    if (task == nullptr) return;
    const Gang& gang = *sim.state().GangOfTask(id);
    if (gang.state() == GANG_STOPPING) return sim.Finish(id, "CANCELLED");
    if (task->state() == TASK_PLACED) return sim.Started(id);
    if (!gang.deployment().empty()) return sim.Ready(id, 9000);
    if (gang.sharded()) return WorkOnShards(gang, *task);
    if (gang.elastic() && !IsListening(*task)) {
      if (task->group_epoch() == 0 || (IsMember(gang, *task) && gang.forming())) {
        // Now and then somebody cannot reach somebody, who may not even be there.
        std::vector<uint32_t> cut;
        if (Pick(8) == 0) cut.push_back(static_cast<uint32_t>(Pick(gang.tasks_size() + 1)));
        return sim.Endpoint(id, 0, "regrouping", cut);
      }
      // Where a group begins, or a rank is told to go.
      if (task->leaving()) return sim.Finish(id, "CANCELLED", "left");
      if (Pick(3) == 0) return sim.Recovered(id, static_cast<uint64_t>(Pick(1000)));
      if (Pick(10) == 0) return sim.Endpoint(id, 0, "a peer is gone");
    } else if (gang.elastic()) {
      return;  // it waits for a group
    }
    if (gang.tasks_size() > 1 && !task->has_endpoint()) return sim.Endpoint(id);
    if (gang.state() == GANG_STARTING) return;
    const double value = Pick(1000) / 1000.0;
    switch (Pick(4)) {
      case 0:
        return sim.Finish(id, "OK", "", 0, {{"validation/accuracy", value}}, "m." + id);
      case 1: {
        const auto step = static_cast<uint64_t>(Pick(1000));
        const std::string sliced = "s" + std::to_string(step % 20);
        if (Pick(3) == 0) {
          return sim.Slice(id, step % 20, sliced + ".s" + std::to_string(Pick(2)));
        }
        if (Pick(3) == 0) return sim.Manifest(id, step % 20, sliced, 2);
        return sim.Checkpoint(id, step, "c" + std::to_string(Pick(50)),
                              {{"validation/accuracy", value}});
      }
      default:
        return sim.Progress(id, static_cast<uint64_t>(Pick(1000)));
    }
  }

  // What it has, or something that is done already; the end of all comes with time.
  void WorkOnShards(const Gang& gang, const Task& task) {
    const std::string id = task.id();
    if (!task.takes_shards()) return sim.ShardsReady(id, 95, 10);
    if (task.leaving() && Pick(2) == 0) return sim.Finish(id, "CANCELLED", "left");
    const Shards& shards = sim.job(gang.job_id()).shards();
    if (static_cast<int>(shards.done()) == shards.results_size()) {
      ShardsStored stored;
      stored.job = JobId(gang.job_id());
      stored.object = "file." + gang.job_id();
      if (Pick(6) == 0) {
        stored.status = DataLoss("chaos");
        stored.bad_shard = Pick(shards.results_size());
      }
      return sim.On(std::move(stored));
    }
    if (Pick(12) == 0) return sim.ShardDone(id, static_cast<uint32_t>(Pick(12)));
    if (task.shards().empty()) return sim.On(Tick{});
    sim.ShardDone(id, task.shards(0), Pick(10) == 0 ? "other" : "");
  }

  void Hurt(const std::string& id) {
    static const char* const kCodes[] = {"INTERNAL", "ABORTED", "UNAVAILABLE", "CANCELLED",
                                         "FAILED_PRECONDITION"};
    if (Pick(2) == 0) return sim.Finish(id, "INTERNAL", "", 9);
    sim.Finish(id, kCodes[Pick(5)], "chaos");
  }

  // A dozen at once is enough to meet every state, and keeps the checks quick.
  void SubmitSomething() {
    if (sim.state().active.size() >= 12) return sim.On(Tick{});
    SubmitJob submit;
    submit.inputs = Sim::Inputs();
    if (Pick(4) == 0) {
      submit.spec = Sim::Tune(Pick(2) == 0 ? "asha" : "random", 1 + Pick(6), Pick(3));
    } else {
      const int least = 1 + Pick(3);
      submit.spec = Pick(2) == 0 ? Sim::Elastic(least, least + Pick(3))
                                 : Sim::Train(least, least + Pick(3), 1 + Pick(2));
      if (Pick(3) == 0) submit.spec = Sim::Batch(least, least + Pick(3));
    }
    if (submit.spec.elastic.recovery == "in_place" && !submit.spec.batch)
      submit.spec.parallel.zero = Pick(2);
    submit.spec.priority = 10 * Pick(4);
    submit.spec.restart.max = Pick(4);
    if (Pick(5) == 0) submit.spec.deadline = std::chrono::seconds(1 + Pick(600));
    if (Pick(3) == 0) submit.spec.restart.log_policies = {{"bad", "exclude_worker"}};
    if (Pick(3) == 0) submit.idempotency_key = "k" + std::to_string(Pick(10));
    sim.On(std::move(submit));
  }

  void CancelSomething() {
    if (sim.state().jobs.empty()) return;
    auto it = sim.state().jobs.begin();
    std::advance(it, Pick(static_cast<int>(sim.state().jobs.size())));
    sim.On(CancelJob{it->first, "chaos"});
  }

  void DeploySomething() {
    const std::string name = "d" + std::to_string(Pick(2));
    switch (Pick(3)) {
      case 0:
        return sim.On(DeleteDeployment{name});
      case 1:
        return sim.On(ScaleDeployment{name, Pick(4)});
      default:
        break;
    }
    CreateDeployment create;
    create.spec.name = name;
    create.spec.model = create.model = "digits@1";
    create.spec.replicas = Pick(3);
    create.spec.slots_per_replica = Pick(2);
    create.model_manifest = "m";
    sim.On(std::move(create));
  }

  void Step() {
    const int worker = Pick(4);
    const std::string task = AnyTask();
    switch (Pick(40)) {
      case 0:
        return Arrive(worker);
      case 1:
        ++incarnation_[worker];
        return Arrive(worker);
      case 2:
        return sim.Lose(Name(worker));
      case 3:
        return sim.On(DrainWorker{WorkerId(Name(worker)), "chaos"});
      case 4:
        return SubmitSomething();
      case 5:
        return Pick(4) == 0 ? CancelSomething() : SubmitSomething();
      case 6:
        return DeploySomething();
      case 7:
        return Pick(3) == 0 ? sim.TakeSnapshot() : sim.On(Tick{});
      case 8:
        return Pick(3) == 0 ? Restart() : sim.Pass(Pick(90'000));
      case 9:
        return task.empty() ? Arrive(worker) : Hurt(task);
      case 10:
        return task.empty() ? Arrive(worker) : sim.Log(task, Pick(5) == 0 ? "bad" : "good");
      case 11:
        return task.empty() ? Arrive(worker) : Repeat(task);
      case 12:
      case 13:
        return sim.On(Tick{});
      default:
        return task.empty() ? SubmitSomething() : Work(task);
    }
  }

  void Restart() {
    sim.Restart();
    sim.On(Tick{});
  }

  void Repeat(const std::string& task) {
    wire::TaskReport report;
    report.mutable_finished()->set_code("OK");
    const uint64_t last = sim.state().FindTask(task)->last_seq();
    if (last == 0) return;
    sim.Report(task, report, 1 + static_cast<uint64_t>(Pick(static_cast<int>(last))));
    EXPECT_TRUE(sim.out.records.empty()) << "a repeat changes nothing";
  }

  std::mt19937 random_;
  std::vector<int> incarnation_;
  std::vector<std::string> doomed_;
};

class RandomSchedule : public testing::TestWithParam<uint32_t> {};

TEST_P(RandomSchedule, InvariantsHoldReplayIsEqualAndAllComesToAnEnd) {
  Chaos chaos(GetParam());
  chaos.Run(500);
  ASSERT_FALSE(HasFatalFailure());
  chaos.Settle();
  ASSERT_FALSE(HasFatalFailure());
  const State& state = chaos.sim.state();
  EXPECT_GT(state.jobs.size(), 10u);
  std::map<std::string, int> ends;
  for (const auto& [id, job] : state.jobs) {
    // The whole pool is 1 + 2 + 3 + 1 slots: what asks for more, or excluded too many, may wait.
    if (job.state() == JOB_QUEUED) {
      EXPECT_NE(WaitingReason(state, id), "starts now") << id;
    } else {
      EXPECT_TRUE(IsTerminal(job.state())) << id << " is " << JobStateName(job.state());
    }
    ++ends[std::string(JobStateName(job.state()))];
  }
  EXPECT_GT(ends["SUCCEEDED"], 0);
  EXPECT_TRUE(state.deployments.empty());
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomSchedule, testing::Range(1u, 6u));

// Virtual time: a queue of two thousand jobs over sixteen slots, in order, without a clock.
TEST(Throughput, LongQueueIsServedInOrder) {
  constexpr int kJobs = 2'000;
  Sim sim;
  sim.check_every = kJobs * 10;
  for (int worker = 0; worker < 8; ++worker) sim.Hello("w" + std::to_string(worker), 2);
  const auto begin = std::chrono::steady_clock::now();
  std::vector<std::string> started;
  auto note = [&] {
    for (const auto& [worker, start] : sim.out.starts) started.push_back(start.job_id());
  };
  for (int i = 0; i < kJobs; ++i) {
    sim.Submit(Sim::Train());
    note();
  }
  for (const auto& [id, reason] : WaitingReasons(sim.state())) {
    EXPECT_EQ(WaitingReason(sim.state(), id), reason) << "alone, " << id;
  }
  for (size_t i = 0; i < kJobs; ++i) {
    ASSERT_LT(i, started.size());
    const std::string task = started[i] + ".a1.r0";
    sim.Run(task);
    sim.Finish(task, "OK", "", 0, {}, "m");
    note();
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  std::vector<std::string> expected;
  for (int i = 1; i <= kJobs; ++i) expected.push_back("j" + std::to_string(i));
  EXPECT_EQ(started, expected);
  EXPECT_TRUE(sim.state().active.empty());
  EXPECT_EQ(sim.state().models.at("digits").versions_size(), kJobs);
  RecordProperty("inputs_per_second", std::to_string(3 * kJobs / seconds.count()));
  std::cout << 3 * kJobs / seconds.count() << " inputs a second, replayed as they come\n";
}

TEST(Determinism, EqualInputsGiveEqualRecords) {
  std::vector<std::string> journals[2];
  for (auto& journal : journals) {
    Chaos chaos(99);
    chaos.sim.check_every = 100;
    chaos.Run(600);
    journal = chaos.sim.journal;
  }
  EXPECT_EQ(journals[0], journals[1]);
  EXPECT_FALSE(journals[0].empty());
}

}  // namespace
}  // namespace lepton::scheduler
