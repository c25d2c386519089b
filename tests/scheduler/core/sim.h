// A cluster on paper: a reactor, workers that do as the test says, and what came out. After every
// input the invariants are checked, and the state is compared with a replay of the records.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/core/invariants.h"
#include "scheduler/core/job_state.h"
#include "scheduler/core/reactor.h"

namespace lepton::scheduler {

class Recorder final : public Effects {
 public:
  void Persist(const Record& record) override {
    records.push_back(RecordBytes(record));
    order += 'P';
  }
  void Welcome(const WorkerId&, const wire::Welcome& welcome) override {
    welcomes.push_back(welcome);
  }
  void Start(const WorkerId& worker, const wire::StartTask& start) override {
    order += 'S';
    starts.emplace_back(worker.str(), start);
  }
  void SendGroup(const WorkerId& worker, const wire::TaskGroup& group) override {
    groups.emplace_back(worker.str(), group);
    sent += 'G';
  }
  void SendShards(const WorkerId& worker, const wire::TaskShards& order) override {
    shards.emplace_back(worker.str(), order);
  }
  void Stop(const WorkerId& worker, const wire::StopTask& stop) override {
    stops.emplace_back(worker.str(), stop);
    sent += 'S';
  }
  void Ack(const WorkerId&, const wire::ReportAck& ack) override { acks.push_back(ack); }
  void Drain(const WorkerId& worker, const wire::Drain&) override {
    drains.push_back(worker.str());
  }
  void Answer(const Reply& reply) override { replies.push_back(reply); }
  void Notify(const Event& event) override { events.push_back(event); }
  void Accepted(const JobId& job, int trial, const wire::TaskReport& report) override {
    accepted.emplace_back(job.str(), report);
    (void)trial;
  }
  void Returned(const Return& seen) override { returns.push_back(seen); }
  void ForgetJob(const JobId& job) override { forgotten_jobs.push_back(job.str()); }
  void ForgetObjects(const std::vector<std::string>& digests) override {
    forgotten.insert(forgotten.end(), digests.begin(), digests.end());
  }

  std::vector<std::string> records;
  std::vector<wire::Welcome> welcomes;
  std::vector<std::pair<std::string, wire::StartTask>> starts;
  std::vector<std::pair<std::string, wire::TaskGroup>> groups;
  std::vector<std::pair<std::string, wire::TaskShards>> shards;
  std::vector<std::pair<std::string, wire::StopTask>> stops;
  std::vector<wire::ReportAck> acks;
  std::vector<std::string> drains;
  std::vector<Reply> replies;
  std::vector<Event> events;
  std::vector<Return> returns;
  std::vector<std::pair<std::string, wire::TaskReport>> accepted;
  std::vector<std::string> forgotten, forgotten_jobs;
  std::string order;
  std::string sent;  // groups and stops, in their order
};

class Sim {
 public:
  explicit Sim(ReactorOptions options = Options());
  static ReactorOptions Options();

  // One input; the effects of this input alone are in `out` afterwards.
  template <typename Body>
  void On(Body body) {
    Feed(Input{now, ++request_, std::move(body)});
  }
  Reply Last() const { return out.replies.empty() ? Reply() : out.replies.back(); }

  // The coordinator dies and comes back: from a snapshot when there is one, and the records since.
  void Restart();
  // Turns the records so far into a snapshot.
  void TakeSnapshot();

  // Time passes, with a Tick at every timer on the way.
  void Pass(int64_t ms);

  // ---- workers ----
  void Hello(const std::string& worker, uint32_t slots = 1, const std::string& incarnation = "i1",
             const std::vector<std::string>& running = {}, const std::string& world = "",
             uint32_t gpus = 0, uint32_t world_size = 1);
  std::string bf16_sums = "tiles";  // of the workers that say hello
  int64_t silent_ms = 0;            // the same
  void Lose(const std::string& worker) { On(WorkerLost{WorkerId(worker), "lease ran out"}); }

  // ---- tasks: each sends one report as its worker would ----
  void Started(const std::string& task);
  // Of an elastic gang: out of every group that it was told of, or `left` it.
  void Endpoint(const std::string& task, uint64_t left = 0, const std::string& cause = "",
                const std::vector<uint32_t>& unreachable = {});
  void Recovered(const std::string& task, uint64_t step);
  void Run(const std::string& task);  // started, and its endpoint if it has peers
  void Progress(const std::string& task, uint64_t step,
                const std::map<std::string, double>& metrics = {});
  void Checkpoint(const std::string& task, uint64_t step, const std::string& manifest,
                  const std::map<std::string, double>& metrics = {});
  // The same of one in slices: "c5.s0", .., each of which its rank reports.
  void Manifest(const std::string& task, uint64_t step, const std::string& manifest, int slices);
  void Slice(const std::string& task, uint64_t step, const std::string& object);
  void Ready(const std::string& task, uint32_t port);
  // Of a sharded gang: its data is prepared; a shard is done ("" as object: the same for any rank).
  void ShardsReady(const std::string& task, int64_t rows, int64_t shard_rows);
  void ShardDone(const std::string& task, uint32_t shard, const std::string& object = "");
  void Stored(const std::string& job, const std::string& object = "file");
  void Log(const std::string& task, const std::string& line);
  // Without a `model` the leader of an elastic gang has one all the same, but for kNoModel.
  static constexpr char kNoModel[] = "no model";
  void Gone(const std::string& task, const std::string& code, int signal = 0, bool saved = false);
  void Finish(const std::string& task, const std::string& code = "OK",
              const std::string& message = "", int signal = 0,
              const std::map<std::string, double>& metrics = {}, const std::string& model = "");
  void Report(const std::string& task, wire::TaskReport report, uint64_t seq = 0);
  // Every living task of the job, by id.
  std::vector<std::string> Living(const std::string& job = "") const;
  void RunAll(const std::string& job);
  // Those that were told to stop do so.
  void StopAll();

  // ---- jobs ----
  // Trains from its checkpoints; the other one outlives its ranks.
  static spec::JobSpec Train(int min_workers = 1, int max_workers = 1, int slots = 1);
  static spec::JobSpec Elastic(int min_workers, int max_workers);
  static spec::JobSpec Batch(int min_workers, int max_workers);
  static spec::JobSpec Tune(const std::string& algorithm, int trials, int max_parallel = 0);
  static JobInputs Inputs();
  std::string Submit(const spec::JobSpec& spec);  // its id; fails the test when refused
  Status TrySubmit(const spec::JobSpec& spec);
  const Job& job(const std::string& id) const { return reactor->state().jobs.at(JobId(id)); }
  std::string StateOf(const std::string& id) const {
    return std::string(JobStateName(job(id).state()));
  }
  const State& state() const { return reactor->state(); }

  int64_t now = 1'700'000'000'000;
  Recorder out;
  std::unique_ptr<Reactor> reactor;
  int check_every = 1;               // inputs between two full checks
  std::vector<std::string> journal;  // since the snapshot
  std::string snapshot;

 private:
  void Feed(const Input& input);
  void Check();

  ReactorOptions options_;
  uint64_t request_ = 0;
  int inputs_ = 0;
  State shadow_;  // by replay
  std::map<std::string, uint64_t> seq_;
};

// Two workers, a gang of one to two ranks that runs on both.
struct TwoRanks {
  explicit TwoRanks(int min_workers = 1) {
    sim.Hello("w1");
    sim.Hello("w2");
    id = sim.Submit(Sim::Train(min_workers, 2));
  }
  Sim sim;
  std::string id;
};

// An elastic gang that a test's cases begin with: the workers w0, w1, .. of one slot each.
class GangTest : public testing::Test {
 protected:
  // So many workers say hello, and the job is submitted.
  void Place(const spec::JobSpec& spec, int workers);
  // The same, and all ranks run and have told of progress.
  void Start(const spec::JobSpec& spec, int workers);
  void Start(int min_workers, int ranks, int max_workers = 0);
  std::string Seat(int seat) const { return id + ".a1.r" + std::to_string(seat); }
  const Gang& gang() const { return *sim.state().FindGang(id + ".a1"); }
  std::vector<uint32_t> Members() const;
  // The tasks to which something about groups was sent by the last input, with their epochs.
  std::vector<std::string> Told() const;

  Sim sim;
  std::string id;
};

}  // namespace lepton::scheduler
