#include <cstdio>
#include <cstdlib>
#include <thread>

#include "cli/api_client.h"
#include "cli/launch.h"
#include "cli/local_agents.h"
#include "cli/output.h"
#include "cli/signals.h"
#include "runtime/base/config.h"
#include "runtime/base/logging.h"
#include "runtime/kernels/cpu/bf16_sums.h"
#include "runtime/kernels/cpu/cpu_isa.h"
#include "worker/cpu_shares.h"
#include "worker/device.h"

namespace lepton::cli {
namespace {

using nlohmann::json;

struct WorkerOptions {
  std::string join, link, pool_key, name, data_dir, data_address, cache_limit = "32GiB";
  int slots = 0;
  bool share_cpus = true;
  std::vector<std::string> labels;
};

bool IsLocal(const std::string& endpoint) {
  return endpoint.find("//127.") != std::string::npos ||
         endpoint.find("//localhost") != std::string::npos;
}

// What the coordinator of a data folder has left there for workers.
Result<std::string> EndpointIn(const std::string& folder) {
  const std::string path = folder + "/coordinator.json";
  LEPTON_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, 1 << 20));
  const json where = json::parse(text, nullptr, false);
  if (!where.is_object() || !where.contains("link") || !where["link"].is_string()) {
    return DataLoss(path + ": not a coordinator's address");
  }
  return where["link"].get<std::string>();
}

// The same, waiting for a coordinator that has been there and starts again just now.
Result<std::string> AwaitEndpointIn(const std::string& folder, StopSignals& signals) {
  const Deadline deadline = Deadline::In(std::chrono::seconds(60));
  for (bool first = true;; first = false) {
    Result<std::string> endpoint = EndpointIn(folder);
    const bool starts = endpoint.status().code() == StatusCode::kNotFound &&
                        std::filesystem::exists(folder + "/pool.key");
    if (endpoint.ok() || !starts || deadline.Expired()) return endpoint;
    if (first) LOG(INFO) << "waiting for the coordinator of " << folder;
    if (signals.Wait(Deadline::In(std::chrono::milliseconds(100)))) return endpoint;
  }
}

// The link's endpoint and the pool's key, from --join's folder or from the two flags.
Status FindCoordinator(const WorkerOptions& options, StopSignals& signals,
                       worker::AgentOptions* agent) {
  std::string folder = options.join;
  if (folder.empty()) {
    const char* env = std::getenv("LEPTON_DATA_DIR");
    folder = env != nullptr ? env : "lepton-data";
  }
  if (!options.link.empty()) {
    agent->coordinator =
        options.link.find("://") == std::string::npos ? "tcp://" + options.link : options.link;
  } else {
    const Result<std::string> endpoint = AwaitEndpointIn(folder, signals);
    if (!endpoint.ok()) {
      return endpoint.status().WithContext(
          "no coordinator to join: give --join its data folder, or --link host:port and "
          "--pool-key");
    }
    agent->coordinator = *endpoint;
    // What this worker has told its peers of itself holds only on loopback, if that is where it is.
    agent->find_coordinator = [folder = std::filesystem::absolute(folder).string(),
                               local = IsLocal(*endpoint)]() -> std::string {
      const Result<std::string> now = EndpointIn(folder);
      return now.ok() && (IsLocal(*now) || !local) ? *now : "";
    };
  }
  const std::string key_file = options.pool_key.empty() ? folder + "/pool.key" : options.pool_key;
  LEPTON_ASSIGN_OR_RETURN(agent->key, wire::LoadPoolKey(key_file));
  return Status::Ok();
}

Result<worker::AgentOptions> MakeOptions(const WorkerOptions& options, StopSignals& signals) {
  LEPTON_RETURN_IF_ERROR(kernels::CheckBf16Sums());
  LEPTON_RETURN_IF_ERROR(kernels::CheckCpuIsa());
  worker::AgentOptions agent;
  agent.cpu_folder = worker::CpuShares::DefaultFolder();
  LEPTON_RETURN_IF_ERROR(FindCoordinator(options, signals, &agent));
  const Launch launch = DetectLaunch();
  agent.launcher = launch.info;
  // Processes of one mpirun share the host's cores.
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  agent.slots = static_cast<uint32_t>(
      options.slots > 0 ? options.slots : std::max(1, cores / std::max(1, launch.local_size)));
  agent.gpus = static_cast<uint32_t>(worker::CountGpus());
  if (agent.gpus > 0) agent.device = "cuda";
  agent.bf16_sums = kernels::Bf16SumsName(kernels::NativeBf16Sums());
  agent.worker_id = options.name;
  if (!options.name.empty() && launch.info.size > 1)
    agent.worker_id += "-" + std::to_string(launch.info.rank);
  agent.data_dir = options.data_dir;
  if (!options.share_cpus) agent.cpu_folder.clear();
  const Result<int64_t> cache_limit = ParseBytes(options.cache_limit);
  if (!cache_limit.ok()) return cache_limit.status().WithContext("--cache-limit");
  agent.cache_limit_bytes = static_cast<uint64_t>(*cache_limit);
  agent.data_address = !options.data_address.empty() ? options.data_address
                       : IsLocal(agent.coordinator)  ? "127.0.0.1"
                                                     : HostAddress();
  for (const std::string& label : options.labels) {
    const size_t equals = label.find('=');
    if (equals == std::string::npos) {
      return InvalidArgument("--label: '" + label + "' must be key=value");
    }
    agent.labels[label.substr(0, equals)] = label.substr(equals + 1);
  }
  return agent;
}

int RunWorker(const Globals& globals, const WorkerOptions& options) {
  StopSignals signals;
  InitLogging({.role = "worker", .min_level = 0, .verbosity = globals.verbosity});
  Result<worker::AgentOptions> agent_options = MakeOptions(options, signals);
  if (!agent_options.ok()) return Fail(agent_options.status());
  LocalAgents agents;
  if (const Status added = agents.Add(*std::move(agent_options)); !added.ok()) return Fail(added);
  while (!agents.ended() && !signals.Wait(Deadline::In(std::chrono::milliseconds(100)))) {
  }
  agents.Stop();
  const Status status = agents.status();
  return status.ok() || signals.stopped() ? kExitOk : Fail(status);
}

int ListWorkers(const Globals& globals) {
  Result<std::unique_ptr<ApiClient>> client = ApiClient::FromGlobals(globals);
  if (!client.ok()) return Fail(client.status());
  const Result<json> workers = (*client)->List("/v1/workers");
  if (!workers.ok()) return Fail(workers.status());
  if (globals.output != "table") {
    std::fputs(Document(*workers, globals.output).c_str(), stdout);
    return kExitOk;
  }
  Table table({"WORKER", "HOST", "STATE", "SLOTS", "USED", "DEVICE", "LAUNCHER", "TASKS"});
  for (const json& worker : *workers) {
    table.Row({Text(worker, "id"), Text(worker, "host"), Text(worker, "state"),
               Text(worker, "slots"), Text(worker, "slots_used"), Text(worker, "device"),
               Text(worker, "launcher"),
               std::to_string(worker.value("tasks", json::array()).size())});
  }
  std::fputs(table.ToString().c_str(), stdout);
  return kExitOk;
}

int Drain(const Globals& globals, const std::string& id) {
  Result<std::unique_ptr<ApiClient>> client = ApiClient::FromGlobals(globals);
  if (!client.ok()) return Fail(client.status());
  const Result<json> done =
      (*client)->Send("POST", "/v1/workers/" + UrlEncode(id) + ":drain", nullptr);
  if (!done.ok()) return Fail(done.status());
  PrintAnswer(*done, globals.output, "worker " + id + " is draining");
  return kExitOk;
}

}  // namespace

void AddWorker(CLI::App& app, Globals& globals) {
  auto options = std::make_shared<WorkerOptions>();
  CLI::App* command = AddAction(app, globals, "worker", "Run a worker, or list and drain workers",
                                [&globals, options] { return RunWorker(globals, *options); });
  command->footer(
      "Examples:\n"
      "  lepton worker --join ./lepton-data              on the coordinator's host\n"
      "  mpirun -np 4 --enable-recovery lepton worker    survivors outlive a lost process\n"
      "  lepton worker --link head:7601 --pool-key pool.key --label rack=a\n"
      "Stops on SIGTERM or SIGINT: tasks first, within 5 s. A rank of an elastic job has its "
      "job's\n"
      "elastic.recovery_budget to end its step and hand over, if that is longer (at most 60 s).\n"
      "While the coordinator is away, tasks go on; with --join it is found on another port, too.\n"
      "Environment: LEPTON_COLLECTIVES_LANES, 1 to 16, TCP connections between two ranks of "
      "different\n"
      "hosts [4, fewer in gangs of more than 16]; a gang has the fewest that any of its workers "
      "wants.");
  command->add_option("--join", options->join,
                      "The coordinator's data folder, which has its address and the pool's key "
                      "[$LEPTON_DATA_DIR or ./lepton-data]");
  command->add_option("--link", options->link, "host:port to join, where folders are not shared");
  command->add_option("--pool-key", options->pool_key, "A copy of the coordinator's pool.key");
  command->add_option("--slots", options->slots, "Tasks that fit at once [the cores]")
      ->check(CLI::Range(1, 1024));
  command->add_flag("!--no-cpu-shares", options->share_cpus,
                    "Let tasks of several slots run on any CPU, not on ones of their own");
  command->add_option("--name", options->name, "This worker's id [host name and 4 digits]");
  command->add_option("--data-dir", options->data_dir,
                      "Cache and scratch [a folder under $TMPDIR or /tmp]");
  command->add_option("--cache-limit", options->cache_limit,
                      "What the cache may hold beyond what tasks use; 0: no limit [32GiB]");
  command->add_option("--data-address", options->data_address,
                      "Address of this host that the other workers reach");
  command->add_option("--label", options->labels, "key=value; may be repeated");
  AddAction(*command, globals, "ls", "List workers", [&globals] { return ListWorkers(globals); });
  auto id = std::make_shared<std::string>();
  CLI::App* drain = AddAction(*command, globals, "drain", "Let a worker finish, then leave",
                              [&globals, id] { return Drain(globals, *id); });
  drain->add_option("worker", *id, "Its id")->required();
}

}  // namespace lepton::cli
