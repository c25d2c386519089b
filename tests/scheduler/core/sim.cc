#include "tests/scheduler/core/sim.h"

#include <algorithm>

#include "scheduler/core/elastic.h"
#include "scheduler/core/index.h"

namespace lepton::scheduler {

ReactorOptions Sim::Options() {
  ReactorOptions options;
  options.token_secret = "secret";
  options.coordinator_incarnation = "c1";
  return options;
}

Sim::Sim(ReactorOptions options)
    : reactor(std::make_unique<Reactor>(options, State(), now)), options_(options) {}

void Sim::Feed(const Input& input) {
  out = Recorder();
  reactor->On(input, out);
  for (const std::string& record : out.records) {
    journal.push_back(record);
    const Status applied = ApplyBytes(record, shadow_);
    ASSERT_TRUE(applied.ok()) << applied.ToString();
  }
  if (++inputs_ % check_every == 0) Check();
}

void Sim::Check() {
  const Status invariants = CheckInvariants(reactor->state());
  ASSERT_TRUE(invariants.ok()) << invariants.ToString();
  ASSERT_EQ(reactor->state().Snapshot(), shadow_.Snapshot()) << "a replay ends elsewhere";
}

void Sim::TakeSnapshot() {
  snapshot = reactor->state().Snapshot();
  journal.clear();
}

void Sim::Restart() {
  State state;
  if (!snapshot.empty()) {
    Result<State> restored = State::Restore(snapshot);
    ASSERT_TRUE(restored.ok()) << restored.status().ToString();
    state = std::move(restored).value();
  }
  for (const std::string& record : journal) {
    const Status applied = ApplyBytes(record, state);
    ASSERT_TRUE(applied.ok()) << applied.ToString();
  }
  ASSERT_EQ(state.Snapshot(), reactor->state().Snapshot());
  reactor = std::make_unique<Reactor>(options_, std::move(state), now);
}

void Sim::Pass(int64_t ms) {
  const int64_t until = now + ms;
  for (auto next = reactor->next_timer_ms(); next && *next <= until;
       next = reactor->next_timer_ms()) {
    now = std::max(now, *next);
    On(Tick{});
    if (testing::Test::HasFatalFailure()) return;
  }
  now = until;
}

void Sim::Hello(const std::string& worker, uint32_t slots, const std::string& incarnation,
                const std::vector<std::string>& running, const std::string& world, uint32_t gpus,
                uint32_t world_size) {
  WorkerHello hello;
  hello.hello.set_protocol_version(1);
  hello.hello.set_worker_id(worker);
  hello.hello.set_incarnation(incarnation);
  hello.hello.set_host("host-" + worker);
  hello.hello.set_slots(slots);
  hello.hello.set_gpus(gpus);
  hello.hello.set_bf16_sums(bf16_sums);
  hello.hello.set_silent_ms(silent_ms);
  hello.hello.set_launcher_world(world);
  hello.hello.set_launcher_size(world_size);
  for (const std::string& task : running) {
    hello.hello.add_running()->set_task_id(task);
  }
  On(std::move(hello));
}

void Sim::Report(const std::string& task_id, wire::TaskReport report, uint64_t seq) {
  const Task* task = state().FindTask(task_id);
  TaskReported reported;
  if (task != nullptr) reported.worker = WorkerId(task->worker_id());
  reported.report = std::move(report);
  reported.report.set_task_id(task_id);
  reported.report.set_seq(seq != 0 ? seq : ++seq_[task_id]);
  On(std::move(reported));
}

void Sim::Started(const std::string& task) {
  wire::TaskReport report;
  report.mutable_started()->set_pid(4242);
  Report(task, std::move(report));
}

void Sim::Endpoint(const std::string& task, uint64_t left, const std::string& cause,
                   const std::vector<uint32_t>& unreachable) {
  const Task* known = state().FindTask(task);
  if (left == 0 && known != nullptr) left = known->group_epoch();
  wire::TaskReport report;
  report.mutable_endpoint()->set_address("address of " + task);
  report.mutable_endpoint()->set_left_epoch(left);
  report.mutable_endpoint()->set_left_wall_ms(now);
  report.mutable_endpoint()->set_cause(cause);
  for (const uint32_t seat : unreachable) {
    report.mutable_endpoint()->add_unreachable()->set_seat(seat);
  }
  Report(task, std::move(report));
}

void Sim::Recovered(const std::string& task, uint64_t step) {
  wire::TaskReport report;
  wire::TaskRecovered& recovered = *report.mutable_recovered();
  recovered.set_epoch(state().GangOfTask(task)->epoch());
  recovered.set_step(step);
  recovered.set_rebuild_ms(2);
  recovered.set_restore_ms(3);
  recovered.set_first_commit_ms(4);
  recovered.set_committed_wall_ms(now);
  Report(task, std::move(report));
}

void Sim::Run(const std::string& task) {
  Started(task);
  const Gang* gang = state().GangOfTask(task);
  if (gang != nullptr && (gang->elastic() || gang->tasks_size() > 1)) Endpoint(task);
}

void Sim::Progress(const std::string& task, uint64_t step,
                   const std::map<std::string, double>& metrics) {
  wire::TaskReport report;
  report.mutable_progress()->set_step(step);
  report.mutable_progress()->mutable_metrics()->insert(metrics.begin(), metrics.end());
  Report(task, std::move(report));
}

void Sim::Checkpoint(const std::string& task, uint64_t step, const std::string& manifest,
                     const std::map<std::string, double>& metrics) {
  wire::TaskReport report;
  report.mutable_checkpoint()->set_step(step);
  report.mutable_checkpoint()->set_manifest(manifest);
  report.mutable_checkpoint()->add_objects(manifest + ".data");
  report.mutable_checkpoint()->mutable_metrics()->insert(metrics.begin(), metrics.end());
  Report(task, std::move(report));
}

void Sim::Manifest(const std::string& task, uint64_t step, const std::string& manifest,
                   int slices) {
  wire::TaskReport report;
  report.mutable_checkpoint()->set_step(step);
  report.mutable_checkpoint()->set_manifest(manifest);
  for (int i = 0; i < slices; ++i) {
    report.mutable_checkpoint()->add_slices(manifest + ".s" + std::to_string(i));
  }
  Report(task, std::move(report));
}

void Sim::Slice(const std::string& task, uint64_t step, const std::string& object) {
  wire::TaskReport report;
  report.mutable_checkpoint_slice()->set_step(step);
  report.mutable_checkpoint_slice()->set_object(object);
  Report(task, std::move(report));
}

void Sim::Ready(const std::string& task, uint32_t port) {
  wire::TaskReport report;
  report.mutable_ready()->set_host("127.0.0.1");
  report.mutable_ready()->set_port(port);
  Report(task, std::move(report));
}

void Sim::ShardsReady(const std::string& task, int64_t rows, int64_t shard_rows) {
  wire::TaskReport report;
  report.mutable_shards_ready()->set_rows(rows);
  report.mutable_shards_ready()->set_shard_rows(shard_rows);
  Report(task, std::move(report));
}

void Sim::ShardDone(const std::string& task, uint32_t shard, const std::string& object) {
  wire::TaskReport report;
  report.mutable_shard_done()->set_shard(shard);
  report.mutable_shard_done()->set_object(object.empty() ? "s" + std::to_string(shard) : object);
  report.mutable_shard_done()->set_bytes(10);
  Report(task, std::move(report));
}

void Sim::Stored(const std::string& job, const std::string& object) {
  ShardsStored stored;
  stored.job = JobId(job);
  stored.object = object;
  stored.bytes = 99;
  On(std::move(stored));
}

void Sim::Log(const std::string& task, const std::string& line) {
  wire::TaskReport report;
  report.mutable_log()->add_lines(line);
  Report(task, std::move(report));
}

void Sim::Finish(const std::string& task, const std::string& code, const std::string& message,
                 int signal, const std::map<std::string, double>& metrics,
                 const std::string& model) {
  wire::TaskReport report;
  wire::TaskFinished& finished = *report.mutable_finished();
  finished.set_code(code);
  finished.set_message(message);
  finished.set_signal(signal);
  finished.mutable_metrics()->insert(metrics.begin(), metrics.end());
  // Who leads an elastic gang has its model.
  const Gang* gang = state().GangOfTask(task);
  const bool leads = gang != nullptr && gang->elastic() && !gang->sharded() && code == "OK" &&
                     IsLeader(*gang, *state().FindTask(task));
  const std::string manifest = model.empty() && leads ? "m" : model == kNoModel ? "" : model;
  if (!manifest.empty()) {
    finished.set_model_manifest(manifest);
    finished.add_objects(manifest + ".weights");
  }
  Report(task, std::move(report));
}

void Sim::Gone(const std::string& task, const std::string& code, int signal, bool saved) {
  wire::TaskReport report;
  report.set_wall_ms(now);
  report.mutable_gone()->set_code(code);
  report.mutable_gone()->set_signal(signal);
  report.mutable_gone()->set_saved(saved);
  Report(task, std::move(report));
}

std::vector<std::string> Sim::Living(const std::string& job) const {
  std::vector<std::string> tasks;
  for (const auto& [id, gang] : state().gangs) {
    if (!job.empty() && gang.job_id() != job) continue;
    for (const Task& task : gang.tasks()) {
      if (IsAlive(task)) tasks.push_back(task.id());
    }
  }
  return tasks;
}

void Sim::RunAll(const std::string& job) {
  for (const std::string& task : Living(job)) Run(task);
}

void Sim::StopAll() {
  for (const std::string& task : Living()) {
    if (state().GangOfTask(task)->state() == GANG_STOPPING) Finish(task, "CANCELLED", "told to");
  }
}

spec::JobSpec Sim::Train(int min_workers, int max_workers, int slots) {
  spec::JobSpec spec;
  spec.kind = spec::JobKind::kTrain;
  spec.name = "digits";
  spec.dataset.uri = "file:///data/digits.csv";
  spec.resources.min_workers = min_workers;
  spec.resources.max_workers = max_workers;
  spec.resources.slots_per_worker = slots;
  spec.register_as = "digits";
  spec.elastic.recovery = "restart";
  return spec;
}

spec::JobSpec Sim::Elastic(int min_workers, int max_workers) {
  spec::JobSpec spec = Train(min_workers, max_workers);
  spec.elastic.recovery = "in_place";
  spec.elastic.recovery_budget = std::chrono::seconds(2);
  return spec;
}

spec::JobSpec Sim::Batch(int min_workers, int max_workers) {
  spec::JobSpec spec = Elastic(min_workers, max_workers);
  spec.kind = spec::JobKind::kBatch;
  spec.register_as.clear();
  spec.model.from = "digits@1";
  spec.batch = spec::BatchSpec();
  return spec;
}

spec::JobSpec Sim::Tune(const std::string& algorithm, int trials, int max_parallel) {
  spec::JobSpec spec = Train();
  spec.kind = spec::JobKind::kTune;
  spec.epochs = 9;
  spec.search.emplace();
  spec.search->algorithm = algorithm;
  spec.search->trials = trials;
  spec.search->max_parallel = max_parallel;
  spec.search->seed = 7;
  spec::Dimension lr;
  lr.path = "optimizer.lr";
  lr.type = spec::Dimension::Type::kLogUniform;
  lr.low = 1e-4;
  lr.high = 1e-1;
  spec.search->space = {lr};
  return spec;
}

JobInputs Sim::Inputs() {
  JobInputs inputs;
  inputs.set_dataset_manifest("data");
  inputs.add_dataset_objects()->set_digest("data");
  inputs.add_dataset_objects()->set_digest("table");
  inputs.set_dataset_name("digits@1");
  return inputs;
}

Status Sim::TrySubmit(const spec::JobSpec& spec) {
  SubmitJob submit;
  submit.spec = spec;
  submit.inputs = Inputs();
  On(std::move(submit));
  return Last().status;
}

std::string Sim::Submit(const spec::JobSpec& spec) {
  const Status status = TrySubmit(spec);
  EXPECT_TRUE(status.ok()) << status.ToString();
  return Last().id;
}

void GangTest::Place(const spec::JobSpec& spec, int workers) {
  for (int i = 0; i < workers; ++i) sim.Hello("w" + std::to_string(i));
  id = sim.Submit(spec);
}

void GangTest::Start(const spec::JobSpec& spec, int workers) {
  Place(spec, workers);
  sim.RunAll(id);
  sim.Progress(Seat(0), 7);
}

void GangTest::Start(int min_workers, int ranks, int max_workers) {
  Start(Sim::Elastic(min_workers, max_workers > 0 ? max_workers : ranks), ranks);
}

std::vector<uint32_t> GangTest::Members() const {
  return {gang().members().begin(), gang().members().end()};
}

std::vector<std::string> GangTest::Told() const {
  std::vector<std::string> told;
  for (const auto& [worker, group] : sim.out.groups) {
    told.push_back(group.task_id() + (group.members().empty() ? " leave" : " join") +
                   std::to_string(group.epoch()));
  }
  return told;
}

}  // namespace lepton::scheduler
