// One job without a server: coordinator in rank 0 of mpirun or srun (or in this one process),
// workers in all ranks; only loopback ports while all ranks are on one host.
#include <algorithm>
#include <cstdio>
#include <optional>
#include <thread>

#include "cli/chaos.h"
#include "cli/follow_job.h"
#include "cli/import_watch.h"
#include "cli/launch.h"
#include "cli/local_agents.h"
#include "cli/model_tools.h"
#include "cli/output.h"
#include "cli/recoveries.h"
#include "cli/run_results.h"
#include "cli/run_state.h"
#include "cli/signals.h"
#include "cli/spec_file.h"
#include "runtime/base/file.h"
#include "runtime/base/logging.h"
#include "runtime/kernels/cpu/bf16_sums.h"
#include "runtime/kernels/cpu/cpu_isa.h"
#include "scheduler/coordinator.h"
#include "worker/cpu_shares.h"
#include "worker/device.h"

namespace lepton::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

struct RunOptions {
  std::string file, out, chaos;
  int workers = 0, slots = 0;
  bool must_resume = false, resume_if_any = false;
  bool onnx = false;

  Resume resume() const {
    return must_resume ? Resume::kMust : resume_if_any ? Resume::kIfAny : Resume::kNo;
  }
};

// The command that goes on with a run of these options.
std::string ResumeCommand(const RunOptions& options) {
  std::string command = "lepton run " + ShellWord(options.file);
  if (!options.out.empty()) command += " --out " + ShellWord(options.out);
  if (options.workers > 0) command += " --workers " + std::to_string(options.workers);
  if (options.slots > 0) command += " --slots " + std::to_string(options.slots);
  if (options.onnx) command += " --onnx";
  return command + " --resume";
}

// What rank 0 tells the others.
struct Meeting {
  std::string link, pool_key_json;
  std::string ToText() const { return json{{"link", link}, {"key", pool_key_json}}.dump(); }
};

worker::AgentOptions AgentFor(const Launch& launch, const Meeting& meeting,
                              const wire::PoolKey& key, int index, int slots) {
  worker::AgentOptions agent;
  agent.cpu_folder = worker::CpuShares::DefaultFolder();
  agent.coordinator = meeting.link;
  agent.key = key;
  agent.worker_id = HostName() + "-" + std::to_string(launch.info.rank) +
                    (launch.info.size == 1 ? "." + std::to_string(index) : "");
  agent.slots = static_cast<uint32_t>(std::max(1, slots));
  agent.gpus = static_cast<uint32_t>(worker::CountGpus());
  if (agent.gpus > 0) agent.device = "cuda";
  agent.bf16_sums = kernels::Bf16SumsName(kernels::NativeBf16Sums());
  agent.launcher = launch.info;
  const bool local = meeting.link.find("//127.") != std::string::npos;
  agent.data_address = local ? "127.0.0.1" : HostAddress();
  return agent;
}

int Cores() {
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

// A rank other than 0: a worker that leaves when it is drained.
int RunAsWorker(const Launch& launch, const RunOptions& options, StopSignals& signals) {
  const Result<std::string> text =
      ShareFromRankZero(launch, "", Deadline::In(std::chrono::seconds(60)));
  if (!text.ok()) return Fail(text.status());
  const json meeting = json::parse(*text, nullptr, false);
  // An empty message: rank 0 refused the spec, and has said why.
  if (!meeting.is_object()) return kExitUsage;
  const Result<wire::PoolKey> key = wire::PoolKeyFromJson(meeting.value("key", std::string()));
  if (!key.ok()) return Fail(key.status());
  worker::AgentOptions agent =
      AgentFor(launch, {meeting.value("link", std::string()), ""}, *key, 0,
               options.slots > 0 ? options.slots : Cores() / std::max(1, launch.local_size));
  agent.max_coordinator_silence = std::chrono::seconds(10);
  LocalAgents agents;
  if (const Status added = agents.Add(std::move(agent)); !added.ok()) return Fail(added);
  while (!agents.ended()) {
    if (signals.Wait(Deadline::In(std::chrono::milliseconds(50)))) break;
  }
  agents.Stop();
  return signals.stopped() || agents.status().ok() ? kExitOk : Fail(agents.status());
}

// Those that are up, once there are `count`. Not those of a run that was killed: its journal has
// them as up until they fail to come back.
Result<json> WaitForWorkers(ApiClient& client, size_t count, StopSignals& signals) {
  const Deadline deadline = Deadline::In(std::chrono::seconds(60));
  for (;;) {
    LEPTON_ASSIGN_OR_RETURN(const json up, client.List("/v1/workers?state=UP"));
    json workers = json::array();
    for (const json& worker : up) {
      if (Number(worker, "last_seen_ms") > 0) workers.push_back(worker);
    }
    if (workers.size() >= count) return workers;
    if (signals.Wait(Deadline::In(std::chrono::milliseconds(10)))) return Cancelled("stopped");
    if (deadline.Expired()) {
      return DeadlineExceeded(std::to_string(workers.size()) + " of " + std::to_string(count) +
                              " workers joined within 60s");
    }
  }
}

class EmbeddedRun {
 public:
  EmbeddedRun(const Globals& globals, const Launch& launch, const RunOptions& options,
              StopSignals& signals)
      : globals_(globals), launch_(launch), options_(options), signals_(signals) {}

  int Run(const SpecFile& file) {
    folder_ =
        fs::absolute(options_.out.empty() ? "lepton-runs" / Name(file) : fs::path(options_.out));
    state_ = folder_ / "state";
    fresh_ = !fs::exists(folder_);
    fresh_state_ = !fs::exists(state_);
    const int status = RunJob(file);
    StopAll();
    if (prepared_ && !accepted_) Undo();
    return status;
  }

 private:
  // The spec's name, or that of its file: two specs without one have folders of their own.
  fs::path Name(const SpecFile& file) const {
    const fs::path path = options_.file;
    std::error_code ignored;
    const bool named = file.document.contains("name") || !fs::is_regular_file(path, ignored);
    return named ? fs::path(file.spec.name) : path.stem();
  }

  int RunJob(const SpecFile& file) {
    const Status started = Start(file);
    // The other ranks wait for a message, also when there is none.
    const std::string message = started.ok() ? meeting_.ToText() : "";
    if (launch_.info.size > 1) {
      const Result<std::string> shared =
          ShareFromRankZero(launch_, message, Deadline::In(std::chrono::seconds(60)));
      if (started.ok() && !shared.ok()) return Fail(shared.status());
    }
    if (!started.ok()) return Fail(started);
    const Result<json> job = Submit(file);
    return job.ok() ? Finish(*job) : Fail(job.status());
  }

  Status Start(const SpecFile& file) {
    const bool on_gpus = file.spec.resources.device == "cuda";
    if (launch_.info.size == 1) {
      LEPTON_RETURN_IF_ERROR(worker::CheckDevice(file.spec.resources.device));
    }
    LEPTON_RETURN_IF_ERROR(CheckPlaceOfResults(file, folder_, fs::exists(state_ / "LOCK")));
    LEPTON_RETURN_IF_ERROR(PrepareState(state_, options_.resume()));
    prepared_ = true;
    LEPTON_RETURN_IF_ERROR(MakeFolders(state_));
    scheduler::CoordinatorOptions coordinator;
    coordinator.model_tools = MakeModelTools();
    coordinator.data_dir = state_;
    coordinator.workers_end_first = true;
    coordinator.file_roots = {fs::current_path()};
    coordinator.file_roots.insert(coordinator.file_roots.end(), file.data_folders.begin(),
                                  file.data_folders.end());
    const bool one_host = static_cast<int>(launch_.info.size) <= std::max(1, launch_.local_size);
    coordinator.link_address = one_host ? "127.0.0.1" : "0.0.0.0";
    LEPTON_ASSIGN_OR_RETURN(coordinator_, scheduler::Coordinator::Start(coordinator));
    owned_ = true;
    meeting_.link = "tcp://" + (one_host ? std::string("127.0.0.1") : HostAddress()) + ":" +
                    std::to_string(coordinator_->link_port());
    meeting_.pool_key_json = coordinator_->pool_key_json();
    LEPTON_ASSIGN_OR_RETURN(key_, wire::PoolKeyFromJson(meeting_.pool_key_json));
    const int local = launch_.info.size > 1  ? 1
                      : options_.workers > 0 ? options_.workers
                      : on_gpus              ? std::max(1, worker::CountGpus())
                                             : Cores();
    slots_ = options_.slots > 0      ? options_.slots
             : launch_.info.size > 1 ? Cores() / std::max(1, launch_.local_size)
                                     : std::max(1, Cores() / local);
    for (int i = 0; i < local; ++i) {
      LEPTON_RETURN_IF_ERROR(agents_.Add(AgentFor(launch_, meeting_, *key_, i, slots_)));
    }
    workers_ =
        launch_.info.size > 1 ? static_cast<size_t>(launch_.info.size) : static_cast<size_t>(local);
    if (!options_.chaos.empty() && workers_ < 2) {
      std::fprintf(stderr, "lepton: --chaos: hurts nothing while there is one worker only\n");
    }
    LEPTON_ASSIGN_OR_RETURN(client_, ApiClient::ForUrl(coordinator_->url()));
    return Status::Ok();
  }

  Result<json> Submit(const SpecFile& file) {
    LEPTON_ASSIGN_OR_RETURN(const json workers, WaitForWorkers(*client_, workers_, signals_));
    const std::string id = kRunId;
    LEPTON_ASSIGN_OR_RETURN(const bool goes_on, GoesOn(file));
    if (!goes_on) {
      const json document = WithWorkers(file, workers);
      const Result<http::Response> job =
          PostWithProgress(*client_, "job " + file.spec.name, "/v1/jobs?id=" + id, document.dump(),
                           {{"Content-Type", "application/json"}}, [this] {
                             if (Stopped()) coordinator_->StopImports();
                           });
      if (!job.ok()) return job.status().WithContext(options_.file);
    }
    accepted_ = true;
    LEPTON_RETURN_IF_ERROR(DropEarlier(state_));
    std::optional<Chaos> chaos;
    if (!options_.chaos.empty()) {
      LEPTON_ASSIGN_OR_RETURN(ChaosPlan plan, ChaosPlan::Parse(options_.chaos));
      chaos.emplace(coordinator_->url(), id, std::move(plan), [this] {
        return agents_.Add(
            AgentFor(launch_, meeting_, *key_, static_cast<int>(agents_.size()), slots_));
      });
    }
    return FollowJob(
        *client_, id, [this] { return Stopped(); }, [this] { return DrainWorkers(); });
  }

  bool Stopped() { return signals_.Wait(Deadline::In(Duration::zero())); }

  // Whether the job is there already, and is to go on.
  Result<bool> GoesOn(const SpecFile& file) {
    if (options_.resume() == Resume::kNo) return false;
    const Result<json> before = client_->Get(std::string("/v1/jobs/") + kRunId);
    if (before.ok()) {
      LEPTON_RETURN_IF_ERROR(CheckSameSpec(file, *before));
      return true;
    }
    if (before.status().code() != StatusCode::kNotFound) return before.status();
    if (options_.resume() == Resume::kIfAny) return false;
    return NotFound("--resume: the run in " + folder_.string() +
                    " ended before its job began; leave --resume out to begin");
  }

  // The job's tasks write a checkpoint and end, and it waits for workers that come with --resume.
  Status DrainWorkers() {
    LEPTON_ASSIGN_OR_RETURN(const json workers, client_->List("/v1/workers?state=UP"));
    Status drained;
    for (const json& worker : workers) {
      const std::string id = UrlEncode(Text(worker, "id"));
      const Status one = client_->Send("POST", "/v1/workers/" + id + ":drain", nullptr).status();
      // One that has left by itself meanwhile, as ranks do that were told to stop too.
      if (!one.ok() && one.code() != StatusCode::kNotFound && drained.ok()) drained = one;
    }
    return drained;
  }

  // After a run that was refused the folder is as it was before.
  void Undo() {
    std::error_code ignored;
    if (fresh_state_) {
      // Another run that began in the same instant has the folder, where this one never had it.
      const Result<FileLock> lock = FileLock::Acquire(state_ / "LOCK");
      if (!owned_ || !lock.ok()) return;
      fs::remove_all(fresh_ ? folder_ : state_, ignored);
      // If it is empty.
      if (fresh_ && options_.out.empty()) fs::remove(folder_.parent_path(), ignored);
    } else if (const Status back = BringBackEarlier(state_); !back.ok()) {
      std::fprintf(stderr, "lepton: the run before this one: %s; --resume brings it back\n",
                   back.message().c_str());
    }
  }

  // Of the model among the results; empty without one.
  std::string ModelArch() {
    const Result<std::string> manifest = ReadFile(folder_ / "manifest.json");
    if (!manifest.ok()) return "";
    const json document = json::parse(*manifest, nullptr, /*allow_exceptions=*/false);
    return document.is_object() ? Text(document, "model.arch") : "";
  }

  int Finish(const json& job) {
    Status saved = SaveResults(*client_, job, folder_);
    // Without a manifest the job made no model: one that lies in the folder is an earlier run's.
    const bool model = Text(job, "result.manifest") != "-";
    const std::string base = "/v1/jobs/" + UrlEncode(Text(job, "id"));
    if (saved.ok() && model && options_.onnx) {
      saved = ExportModel(*client_, base, folder_ / "model.onnx");
    }
    if (saved.ok() && model && HasFolderForm(ModelArch())) {
      saved = ExportModelFolder(*client_, base, folder_ / "model");
    }
    if (!saved.ok()) return Fail(saved.WithContext("results"));
    const auto ranks = static_cast<size_t>(Number(job, "group.ranks"));
    if (!IsFinal(Text(job, "state"))) {
      const bool over = WaitsForLauncher(job) && !signals_.stopped();
      if (over) std::fprintf(stderr, "lepton: %s\n", Text(job, "reason").c_str());
      std::fprintf(stderr, "lepton: stopped at %s %s; `%s`%s goes on\n",
                   job.contains("shards")   ? "row"
                   : job.contains("search") ? "trial"
                                            : "step",
                   Text(job, "progress.step").c_str(), ResumeCommand(options_).c_str(),
                   over ? " under a new mpirun or srun" : "");
      return over ? kExitFailed : kExitCancelled;
    }
    if (JobExitStatus(job) != kExitOk) {
      std::fprintf(stderr, "lepton: job %s: %s\n", Text(job, "state").c_str(),
                   Text(job, "reason").c_str());
    }
    // For people: where standard output is a table, and never in its last line.
    if (globals_.output == "table") {
      std::fputs(RecoveriesTable(job).c_str(), stdout);
      std::printf("results in %s\n%s\n", folder_.c_str(), ResultLine(job, ranks).c_str());
    } else {
      json line = job.value("result", json::object());
      line["workers"] = ranks;
      line["state"] = Text(job, "state");
      if (job.contains("recoveries")) line["recoveries"] = job["recoveries"];
      line["folder"] = folder_.string();
      std::fputs(globals_.output == "json" ? (line.dump() + "\n").c_str()
                                           : Document(line, globals_.output).c_str(),
                 stdout);
    }
    return JobExitStatus(job);
  }

  // Workers of the other ranks leave cleanly, so that mpirun and srun see status 0.
  void StopAll() {
    if (client_ && launch_.info.size > 1) {
      (void)DrainWorkers();
      const Deadline deadline = Deadline::In(std::chrono::seconds(3));
      while (!deadline.Expired()) {
        const Result<json> left = client_->List("/v1/workers?state=DRAINING");
        const Result<json> up = client_->List("/v1/workers?state=UP");
        if (left.ok() && up.ok() && left->empty() && up->empty()) break;
        std::this_thread::sleep_for(std::chrono::milliseconds(20));
      }
    }
    agents_.Stop();
    if (coordinator_) coordinator_->Stop(std::chrono::seconds(1));
  }

  const Globals& globals_;
  const Launch launch_;
  const RunOptions& options_;
  StopSignals& signals_;
  fs::path folder_, state_;
  bool fresh_ = false, fresh_state_ = false;  // the folder, and its state, were not there before
  bool prepared_ = false;                     // the state is this run's
  bool owned_ = false;                        // and it has had its lock
  bool accepted_ = false;                     // the job is in it
  std::unique_ptr<scheduler::Coordinator> coordinator_;
  LocalAgents agents_;
  size_t workers_ = 0;
  Meeting meeting_;
  std::optional<wire::PoolKey> key_;
  int slots_ = 1;  // of each worker
  std::unique_ptr<ApiClient> client_;
};

int Run(const Globals& globals, const RunOptions& options) {
  StopSignals signals;
  InitLogging(
      {.role = "run", .min_level = globals.verbosity > 0 ? 0 : 1, .verbosity = globals.verbosity});
  const Launch launch = DetectLaunch();
  Status environment = kernels::CheckBf16Sums();
  if (environment.ok()) environment = kernels::CheckCpuIsa();
  if (!environment.ok()) {
    if (launch.info.size > 1 && launch.info.rank == 0) {
      (void)ShareFromRankZero(launch, "", Deadline::In(std::chrono::seconds(60)));
    }
    return Fail(environment);
  }
  if (launch.info.rank > 0) return RunAsWorker(launch, options, signals);
  if (!options.chaos.empty()) {
    if (launch.info.size > 1) {
      (void)ShareFromRankZero(launch, "", Deadline::In(std::chrono::seconds(60)));
      return Fail(InvalidArgument("--chaos: not under mpirun or srun: it hurts local tasks only"));
    }
    if (const auto plan = ChaosPlan::Parse(options.chaos); !plan.ok()) return Fail(plan.status());
  }
  const Result<SpecFile> file = LoadSpecFile(options.file);
  if (!file.ok()) {
    // The other ranks are waiting for a message.
    if (launch.info.size > 1) {
      (void)ShareFromRankZero(launch, "", Deadline::In(std::chrono::seconds(60)));
    }
    return Fail(file.status());
  }
  return EmbeddedRun(globals, launch, options, signals).Run(*file);
}

}  // namespace

void AddRun(CLI::App& app, Globals& globals) {
  auto options = std::make_shared<RunOptions>();
  CLI::App* command =
      AddAction(app, globals, "run",
                "Run one job here, without a server; under mpirun or srun over all its processes",
                [&globals, options] { return Run(globals, *options); });
  command->footer(
      "Examples:\n"
      "  lepton run job.yaml                     workers: one a core\n"
      "  mpirun -np 4 lepton run job.yaml        a worker in each process\n"
      "  sbatch -N 2 scripts/slurm/run.sbatch job.yaml\n"
      "A dataset's `uri` may be relative to the spec's folder. Ports are on loopback only while "
      "all\n"
      "processes share a host. The last line, also of `-o json`, names the model, the SHA-256 "
      "over\n"
      "its weights, the workers, the steps and the metrics. The exit status is the job's.\n"
      "Ctrl-C stops it after a checkpoint; --resume goes on from there, as after a kill. Without "
      "it "
      "an\n"
      "earlier run in the folder makes place for the new one, unless it still goes on.");
  command->add_option("spec", options->file, "The job's spec (YAML or JSON)")->required();
  command->add_option("--workers", options->workers, "Local workers [one a core]")
      ->check(CLI::Range(1, 1024));
  command->add_option("--slots", options->slots, "Slots of each worker [its share of the cores]")
      ->check(CLI::Range(1, 1024));
  command->add_option("--out", options->out,
                      "Folder of the results [./lepton-runs/<name of the spec, or of its file>]");
  command->add_option("--chaos", options->chaos,
                      "Hurt its tasks on purpose: seed=N[,faults=N]; the result stays the same");
  command->add_flag("--onnx", options->onnx, "Leave the model as model.onnx too");
  command->add_flag("--resume", options->must_resume,
                    "Go on with the run that was stopped or killed there, with the same spec; of "
                    "one that is over, its result again");
  command->add_flag("--resume-if-any", options->resume_if_any,
                    "The same, but begin where there is no run, unless --resume is there too: for "
                    "batch jobs that start again");
}

}  // namespace lepton::cli
