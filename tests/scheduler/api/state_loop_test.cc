// The state loop against a disk that fails.
#include "scheduler/loop/state_loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <future>

#include "runtime/base/file.h"
#include "runtime/base/hash.h"
#include "runtime/base/metrics.h"
#include "tests/scheduler/api/test_cluster.h"

namespace lepton::scheduler {
namespace {

// The real store, whose appends can be made to fail.
class FailingStore final : public storage::MetadataStore {
 public:
  explicit FailingStore(std::unique_ptr<storage::MetadataStore> real) : real_(std::move(real)) {}
  std::atomic<bool> fail{false};
  std::atomic<int> appends{0}, snapshots{0};

  Result<uint64_t> Append(const std::vector<std::string>& records) override {
    if (fail) return ResourceExhausted("metadata: no space left on device");
    ++appends;
    return real_->Append(records);
  }
  uint64_t last_seq() const override { return real_->last_seq(); }
  Status Replay(uint64_t after,
                const std::function<Status(uint64_t, std::string_view)>& on_record) const override {
    return real_->Replay(after, on_record);
  }
  Status WriteSnapshot(uint64_t seq, std::string_view state, uint64_t keep_after) override {
    ++snapshots;
    return real_->WriteSnapshot(seq, state, keep_after);
  }
  Result<std::optional<Snapshot>> ReadSnapshot() const override { return real_->ReadSnapshot(); }
  Status Put(std::string_view table, const std::vector<Row>& rows) override {
    return real_->Put(table, rows);
  }
  Result<std::optional<std::string>> Get(std::string_view table,
                                         std::string_view key) const override {
    return real_->Get(table, key);
  }
  Result<std::vector<Row>> Scan(std::string_view table, std::string_view from, std::string_view to,
                                size_t limit) const override {
    return real_->Scan(table, from, to, limit);
  }
  Status Delete(std::string_view table, const std::vector<std::string>& keys) override {
    return real_->Delete(table, keys);
  }
  Status DeleteRange(std::string_view table, std::string_view from, std::string_view to) override {
    return real_->DeleteRange(table, from, to);
  }
  Status Flush() override { return real_->Flush(); }

 private:
  std::unique_ptr<storage::MetadataStore> real_;
};

class CountingSink final : public LoopSink {
 public:
  std::atomic<int> failures{0}, commits{0};
  void Welcome(const WorkerId&, const wire::Welcome&) override {}
  void Start(const WorkerId&, const wire::StartTask&) override {}
  void SendGroup(const WorkerId&, const wire::TaskGroup&) override {}
  void SendShards(const WorkerId&, const wire::TaskShards&) override {}
  void Stop(const WorkerId&, const wire::StopTask&) override {}
  void Ack(const WorkerId&, const wire::ReportAck&) override {}
  void Drain(const WorkerId&, const wire::Drain&) override {}
  void Accepted(const JobId&, int, const wire::TaskReport&) override {}
  void ForgetJob(const JobId&) override {}
  void Committed(const State&, const std::set<JobId>&) override { ++commits; }
  void JournalFailed(const Status&) override { ++failures; }
};

class StateLoopTest : public testing::Test {
 protected:
  void SetUp() override {
    auto objects = storage::ObjectStore::Open(folder_.path());
    ASSERT_TRUE(objects.ok());
    objects_ = *std::move(objects);
    Open();
  }
  void TearDown() override { loop_.reset(); }
  // The real time, from a wall clock that is `behind`.
  class WrongClock final : public Clock {
   public:
    MonotonicTime Now() const override { return RealClock().Now(); }
    int64_t WallMs() const override { return RealClock().WallMs() - behind_ms; }
    std::atomic<int64_t> behind_ms{0};
  };
  void Open(uint64_t snapshot_every = 5000) {
    loop_.reset();
    store_.reset();
    auto store = storage::MetadataStore::Open(folder_.path() / "metadata");
    ASSERT_TRUE(store.ok()) << store.status().ToString();
    store_ = std::make_unique<FailingStore>(*std::move(store));
    LoopOptions options;
    options.reactor.token_secret = "secret";
    options.reactor.coordinator_incarnation = "1";
    options.retry_after = std::chrono::milliseconds(50);
    options.snapshot_every_records = snapshot_every;
    options.reactor.lease_ms = 200;
    options.reactor.come_back_ms = 200;
    auto loop = StateLoop::Open(*store_, *objects_, clock_, options);
    ASSERT_TRUE(loop.ok()) << loop.status().ToString();
    loop_ = *std::move(loop);
    loop_->Start(sink_);
  }
  // Registers a dataset; its status.
  std::future<Status> Post(const std::string& name) {
    auto done = std::make_shared<std::promise<Status>>();
    CreateDataset create;
    create.name = name;
    create.manifest = Sha256Hex(name);
    create.objects.emplace_back().set_digest(create.manifest);
    create.rows = 1;
    loop_->Post(create,
                [done](const Reply& reply, const State&) { done->set_value(reply.status); });
    return done->get_future();
  }
  std::vector<std::string> Datasets() {
    std::promise<std::vector<std::string>> names;
    loop_->Read([&](const State& state) {
      std::vector<std::string> all;
      for (const auto& [name, dataset] : state.datasets) all.push_back(name);
      names.set_value(all);
    });
    return names.get_future().get();
  }

  // Of the worker "w1", from within ten seconds; UNSPECIFIED: there is none.
  bool Becomes(WorkerState wanted) {
    return Eventually([&] {
      std::promise<WorkerState> is;
      loop_->Read([&](const State& state) {
        const auto worker = state.workers.find(WorkerId("w1"));
        is.set_value(worker == state.workers.end() ? WORKER_STATE_UNSPECIFIED
                                                   : worker->second.state());
      });
      return is.get_future().get() == wanted;
    });
  }
  void Hello() {
    WorkerHello arrived;
    arrived.hello.set_worker_id("w1");
    arrived.hello.set_incarnation("i1");
    arrived.hello.set_slots(1);
    loop_->Post(arrived);
  }

  WrongClock clock_;
  TempFolder folder_;
  CountingSink sink_;
  std::unique_ptr<storage::ObjectStore> objects_;
  std::unique_ptr<FailingStore> store_;
  std::unique_ptr<StateLoop> loop_;
};

TEST_F(StateLoopTest, AFullDiskUndoesTheBatchAndTheLoopGoesOn) {
  const auto refuses = [&] {
    std::promise<Status> is;
    loop_->Read([&](const State&) { is.set_value(loop_->JournalRefuses()); });
    return is.get_future().get();
  };
  EXPECT_TRUE(Post("before").get().ok());
  EXPECT_TRUE(refuses().ok());
  store_->fail = true;
  const Status refused = Post("lost").get();
  EXPECT_EQ(refused.code(), StatusCode::kResourceExhausted) << refused.ToString();
  EXPECT_EQ(sink_.failures, 1);
  EXPECT_EQ(refuses().code(), StatusCode::kResourceExhausted);
  // Reads go on and show only what is on disk.
  EXPECT_THAT(Datasets(), testing::ElementsAre("before"));
  // Until the next try, callers are refused without touching the disk.
  EXPECT_EQ(Post("too soon").get().code(), StatusCode::kResourceExhausted);
  store_->fail = false;
  std::this_thread::sleep_for(std::chrono::milliseconds(60));
  EXPECT_TRUE(Post("after").get().ok());
  EXPECT_TRUE(refuses().ok());
  EXPECT_THAT(Datasets(), testing::ElementsAre("after", "before"));
  Open();
  EXPECT_THAT(Datasets(), testing::ElementsAre("after", "before"));
}

TEST_F(StateLoopTest, InputsThatWaitTogetherShareOneCommit) {
  std::promise<void> entered, leave;
  loop_->Read([&](const State&) {
    entered.set_value();
    leave.get_future().wait();
  });
  entered.get_future().wait();
  std::vector<std::future<Status>> replies;
  for (int i = 0; i < 50; ++i) replies.push_back(Post("d" + std::to_string(i)));
  leave.set_value();
  for (auto& reply : replies) EXPECT_TRUE(reply.get().ok());
  EXPECT_EQ(store_->appends, 1);
}

TEST_F(StateLoopTest, ASnapshotShortensReplayWithoutChangingTheState) {
  Open(/*snapshot_every=*/10);
  for (int i = 0; i < 25; ++i) ASSERT_TRUE(Post("d" + std::to_string(i)).get().ok());
  Datasets();  // after the last batch, and so after its snapshot
  const auto before = Datasets();
  const auto snapshot = store_->ReadSnapshot();
  ASSERT_TRUE(snapshot.ok());
  ASSERT_TRUE(snapshot->has_value());
  EXPECT_GE((*snapshot)->seq, 20u);
  Open();
  EXPECT_EQ(Datasets(), before);
}

TEST_F(StateLoopTest, ALargerStateIsWrittenLessOften) {
  Open(/*snapshot_every=*/1);
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(Post("d" + std::to_string(i)).get().ok());
  const auto before = Datasets();
  EXPECT_GE(store_->snapshots, 4);
  EXPECT_LE(store_->snapshots, 16) << "each is as large as all before";
  Open();
  EXPECT_EQ(Datasets(), before);
}

TEST_F(StateLoopTest, AGuardDecidesOnTheStateThatItsInputWillMeet) {
  ASSERT_TRUE(Post("a").get().ok());
  std::promise<Status> done;
  CreateDataset create;
  create.name = "b";
  create.manifest = Sha256Hex("b");
  loop_->Post(
      create, [&](const Reply& reply, const State&) { done.set_value(reply.status); },
      [](const State& state) {
        return state.datasets.contains("a") ? Aborted("a is there") : Status::Ok();
      });
  EXPECT_EQ(done.get_future().get(), Aborted("a is there"));
  EXPECT_THAT(Datasets(), testing::ElementsAre("a"));
}

TEST_F(StateLoopTest, TimeOutsRunOnWhenTheWallClockIsSetBack) {
  Hello();
  ASSERT_TRUE(Becomes(WORKER_UP));
  clock_.behind_ms = 7'200'000;
  Open();
  const MonotonicTime start = RealClock().Now();
  EXPECT_TRUE(Becomes(WORKER_LOST)) << "it does not come back";
  EXPECT_LT(RealClock().Now() - start, std::chrono::seconds(3));
}

// This process, all of its threads.
void StandStill(std::chrono::milliseconds time) {
  const pid_t self = getpid();
  const pid_t child = fork();
  if (child == 0) {
    kill(self, SIGSTOP);
    usleep(static_cast<useconds_t>(time.count() * 1000));
    kill(self, SIGCONT);
    _exit(0);
  }
  waitpid(child, nullptr, 0);
}

// What workers told while a coordinator stood still reaches the loop a little later than it goes
// on.
TEST_F(StateLoopTest, WhoStoodStillListensBeforeTimeIsUp) {
  const auto since = [this] {
    std::promise<int64_t> is;
    loop_->Read(
        [&](const State& state) { is.set_value(state.workers.at(WorkerId("w1")).since_ms()); });
    return is.get_future().get();
  };
  Hello();
  ASSERT_TRUE(Becomes(WORKER_UP));
  const int64_t before = since();
  Open();  // it has 200 ms to come back
  StandStill(std::chrono::milliseconds(1'200));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  Hello();
  ASSERT_TRUE(Becomes(WORKER_UP));
  EXPECT_EQ(since(), before) << "it was lost in between";
}

// What a task counted in its own process, and a checkpoint that could not be stored. What is said
// again since its acknowledgement was lost adds nothing.
TEST_F(StateLoopTest, WhatTasksTellOfIsInTheMetricsOnce) {
  Hello();
  SubmitJob submit;
  submit.spec.name = "digits";
  submit.spec.dataset.uri = "file:///data/digits.csv";
  submit.inputs.set_dataset_manifest("data");
  submit.inputs.add_dataset_objects()->set_digest("data");
  std::promise<std::string> id;
  loop_->Post(submit, [&](const Reply& reply, const State&) { id.set_value(reply.id); });
  const std::string task = id.get_future().get() + ".a1.r0";
  const auto counts = [] {
    const auto value = [](const std::string& name, const metrics::Labels& labels) {
      return metrics::Counter(name, "of a test", labels).Value();
    };
    return std::vector<double>{
        value("lepton_collectives_refused_total", {{"reason", "malformed"}}),
        value("lepton_collectives_refused_total", {{"reason", "epoch"}}),
        value("lepton_collectives_corrupt_total", {}),
        value("lepton_collectives_failures_total", {{"code", "DEADLINE_EXCEEDED"}}),
        value("lepton_checkpoints_lost_total", {})};
  };
  const std::vector<double> before = counts();
  wire::TaskReport faults, lost;
  (*faults.mutable_group_faults()->mutable_refused())["malformed"] = 3;
  (*faults.mutable_group_faults()->mutable_refused())["epoch"] = 1;
  (*faults.mutable_group_faults()->mutable_failures())["DEADLINE_EXCEEDED"] = 2;
  faults.mutable_group_faults()->set_corrupt(5);
  lost.mutable_log()->set_checkpoint_lost("checkpoint of step 5");
  uint64_t seq = 0;
  for (wire::TaskReport* const report : {&faults, &lost}) {
    report->set_task_id(task);
    report->set_seq(++seq);
    for (int times = 0; times < 2; ++times) loop_->Post(TaskReported{WorkerId("w1"), *report});
  }
  std::promise<void> all;
  loop_->Read([&](const State&) { all.set_value(); });
  all.get_future().get();
  std::vector<double> added = counts();
  for (size_t i = 0; i < added.size(); ++i) added[i] -= before[i];
  EXPECT_THAT(added, testing::ElementsAre(3, 1, 5, 2, 1));
}

TEST_F(StateLoopTest, TimersRunInOrderOnTheLoop) {
  std::promise<std::string> done;
  std::string order;
  loop_->After(std::chrono::milliseconds(30), [&](const State&) { done.set_value(order + "b"); });
  loop_->After(std::chrono::milliseconds(10), [&](const State&) { order += "a"; });
  const MonotonicTime before = RealClock().Now();
  EXPECT_EQ(done.get_future().get(), "ab");
  // Also when the loop had gone to sleep for longer before it was told.
  EXPECT_LT(RealClock().Now() - before, std::chrono::milliseconds(500));
}

TEST(ObjectKeeperTest, DeletesOnlyWhatIsDueUnusedAndNotHeld) {
  TempFolder folder;
  auto objects = *storage::ObjectStore::Open(folder.path());
  const std::string a = *objects->Put("a"), b = *objects->Put("b");
  State state;
  ObjectKeeper keeper({.delay = std::chrono::milliseconds(20)});
  keeper.Forget({a, b});
  EXPECT_EQ(keeper.Collect(state, *objects), 0u) << "too early";
  std::this_thread::sleep_for(std::chrono::milliseconds(25));
  {
    const auto hold = keeper.HoldAll();
    EXPECT_EQ(keeper.Collect(state, *objects), 0u) << "held";
  }
  keeper.Touch(a);
  EXPECT_EQ(keeper.Collect(state, *objects), 1u);
  EXPECT_TRUE(objects->Has(a));
  EXPECT_FALSE(objects->Has(b));
  std::this_thread::sleep_for(std::chrono::milliseconds(25));
  state.object_refs[a] = 1;
  EXPECT_EQ(keeper.Collect(state, *objects), 0u) << "in use";
  EXPECT_TRUE(objects->Has(a));
}

TEST(ObjectKeeperTest, BeyondItsBytesTheOldestGoSoonerUnlessTheyAreSpokenFor) {
  TempFolder folder;
  auto objects = *storage::ObjectStore::Open(folder.path());
  std::vector<std::string> digests;
  for (char name = 'a'; name < 'f'; ++name) {
    digests.push_back(*objects->Put(std::string(100, name)));
  }
  State state;
  ObjectKeeper keeper({.most_bytes = 150, .least_delay = Duration(0)});
  keeper.Touch(digests[0]);  // found while it was in use: its worker has yet to name it
  for (const std::string& digest : digests) keeper.Forget({digest});
  keeper.Touch(digests[1]);
  EXPECT_EQ(keeper.Collect(state, *objects), 2u);
  std::vector<bool> there;
  for (const std::string& digest : digests) there.push_back(objects->Has(digest));
  EXPECT_THAT(there, testing::ElementsAre(true, true, false, false, true));
  EXPECT_EQ(keeper.Collect(state, *objects), 0u);
  ObjectKeeper patient({.most_bytes = 0});
  patient.Forget({digests[0]});
  EXPECT_EQ(patient.Collect(state, *objects), 0u) << "not at once";
  EXPECT_EQ(patient.CollectAll(state, *objects), 1u);
}

TEST(ObjectKeeperTest, WhatAnEarlierProcessLeftIsFound) {
  TempFolder folder;
  auto objects = *storage::ObjectStore::Open(folder.path());
  const std::string used = *objects->Put("used"), left = *objects->Put("left");
  State state;
  state.object_refs[used] = 1;
  ObjectKeeper keeper({.delay = Duration(0)});
  EXPECT_EQ(keeper.ForgetStored(*objects), 2u);
  EXPECT_EQ(keeper.Collect(state, *objects), 1u);
  EXPECT_TRUE(objects->Has(used));
  EXPECT_FALSE(objects->Has(left));
}

}  // namespace
}  // namespace lepton::scheduler
