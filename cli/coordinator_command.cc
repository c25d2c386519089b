#include <cstdio>
#include <limits>

#include "cli/command.h"
#include "cli/launch.h"
#include "cli/model_tools.h"
#include "cli/signals.h"
#include "runtime/base/config.h"
#include "runtime/base/logging.h"
#include "scheduler/coordinator.h"

namespace lepton::cli {
namespace {

struct Flag {
  const char* key;
  const char* help;
};
// Each is also a setting of --config's file and an environment variable: http.port is
// LEPTON_HTTP_PORT and --http-port.
constexpr Flag kFlags[] = {
    {"data_dir", "Folder of all state [./lepton-data]"},
    {"http.address", "HTTP address; beyond loopback it needs API keys and TLS [127.0.0.1]"},
    {"http.port", "HTTP port; 0 picks one [7600]"},
    {"link.address", "Address that workers connect to; CURVE-authenticated [127.0.0.1]"},
    {"link.port", "Port that workers connect to; 0 picks one [7601]"},
    {"tls.cert", "PEM certificate chain: HTTPS"},
    {"tls.key", "PEM key of it"},
    {"file_roots", "Folders that file:// URIs may read, separated by ':'; not the data folder [.]"},
    {"require_auth", "Demand an API key even on loopback [false]"},
    {"max_body", "Largest HTTP body [64MiB]"},
    {"history.log_limit", "Log kept of a job; its oldest lines go first [64MiB]"},
    {"history.metric_limit", "Metric points kept of a job; then every second one [16MiB]"},
    {"history.limit", "Logs and metrics kept of all jobs; the longest silent go first [4GiB]"},
    {"history.jobs", "Finished jobs kept, the newest; 0 keeps all [10000]"},
    {"history.age", "Logs and metrics older than this are deleted [30d]"},
    {"lease", "A worker silent for this long is lost; at least two heartbeats [5s]"},
    {"heartbeat", "How often workers report; at least 10ms [500ms]"},
};

std::string FlagOf(const std::string& key) {
  std::string flag = "--" + key;
  for (char& c : flag) c = c == '.' || c == '_' ? '-' : c;
  return flag;
}

Result<scheduler::CoordinatorOptions> ReadOptions(const Config& config) {
  scheduler::CoordinatorOptions options;
  options.data_dir = config.GetOr("data_dir", "lepton-data");
  options.http_address = config.GetOr("http.address", options.http_address);
  LEPTON_ASSIGN_OR_RETURN(const int64_t http_port, config.GetInt("http.port", 7600, 0, 65535));
  options.http_port = static_cast<uint16_t>(http_port);
  options.link_address = config.GetOr("link.address", options.link_address);
  LEPTON_ASSIGN_OR_RETURN(const int64_t link_port, config.GetInt("link.port", 7601, 0, 65535));
  options.link_port = static_cast<uint16_t>(link_port);
  options.tls_certificate_file = config.GetOr("tls.cert", "");
  options.tls_key_file = config.GetOr("tls.key", "");
  LEPTON_ASSIGN_OR_RETURN(options.require_auth, config.GetBool("require_auth", false));
  LEPTON_ASSIGN_OR_RETURN(options.lease, config.GetDuration("lease", options.lease));
  LEPTON_ASSIGN_OR_RETURN(options.heartbeat, config.GetDuration("heartbeat", options.heartbeat));
  LEPTON_ASSIGN_OR_RETURN(options.max_body_bytes,
                          config.GetBytes("max_body", options.max_body_bytes));
  scheduler::HistoryLimits& history = options.history;
  LEPTON_ASSIGN_OR_RETURN(history.log_bytes_per_job,
                          config.GetBytes("history.log_limit", history.log_bytes_per_job));
  LEPTON_ASSIGN_OR_RETURN(history.metric_bytes_per_job,
                          config.GetBytes("history.metric_limit", history.metric_bytes_per_job));
  LEPTON_ASSIGN_OR_RETURN(history.total_bytes,
                          config.GetBytes("history.limit", history.total_bytes));
  LEPTON_ASSIGN_OR_RETURN(const int64_t jobs,
                          config.GetInt("history.jobs", static_cast<int64_t>(history.jobs), 0,
                                        std::numeric_limits<int32_t>::max()));
  history.jobs = static_cast<size_t>(jobs);
  LEPTON_ASSIGN_OR_RETURN(history.max_age, config.GetDuration("history.age", history.max_age));
  const std::string roots = config.GetOr("file_roots", "");
  for (size_t begin = 0; begin < roots.size();) {
    const size_t end = std::min(roots.find(':', begin), roots.size());
    if (end > begin) options.file_roots.emplace_back(roots.substr(begin, end - begin));
    begin = end + 1;
  }
  return options;
}

int RunCoordinator(const Globals& globals, const std::string& file,
                   const std::map<std::string, std::string>& flags) {
  StopSignals signals;
  InitLogging({.role = "coordinator", .min_level = 0, .verbosity = globals.verbosity});
  std::vector<std::string> known;
  for (const Flag& flag : kFlags) known.emplace_back(flag.key);
  Config config(std::move(known));
  if (!file.empty()) {
    if (const Status loaded = config.LoadFile(file); !loaded.ok()) return Fail(loaded);
  }
  config.LoadEnvironment();
  for (const auto& [key, value] : flags) {
    if (!value.empty()) config.Set(key, value);
  }
  Result<scheduler::CoordinatorOptions> options = ReadOptions(config);
  if (!options.ok()) return Fail(options.status());
  options->model_tools = MakeModelTools();
  options->link_host = HostAddress();
  options->address_file = options->data_dir / "coordinator.json";
  Result<std::unique_ptr<scheduler::Coordinator>> coordinator =
      scheduler::Coordinator::Start(*options);
  if (!coordinator.ok()) return Fail(coordinator.status());
  std::printf("lepton coordinator: %s\nworkers join with: lepton worker --join %s\n",
              (*coordinator)->url().c_str(), std::filesystem::absolute(options->data_dir).c_str());
  std::fflush(stdout);
  signals.Wait(Deadline::Never());
  LOG(INFO) << "stopping";
  (*coordinator)->Stop(std::chrono::seconds(2));
  return kExitOk;
}

}  // namespace

void AddCoordinator(CLI::App& app, Globals& globals) {
  auto file = std::make_shared<std::string>();
  auto flags = std::make_shared<std::map<std::string, std::string>>();
  CLI::App* command =
      AddAction(app, globals, "coordinator", "Run the coordinator in the foreground",
                [=, &globals] { return RunCoordinator(globals, *file, *flags); });
  command->footer(
      "Examples:\n"
      "  lepton coordinator                                 loopback only, state in ./lepton-data\n"
      "  lepton key create --data-dir /var/lib/lepton       then, for the network:\n"
      "  lepton coordinator --data-dir /var/lib/lepton --http-address 0.0.0.0 \\\n"
      "    --tls-cert cert.pem --tls-key key.pem --link-address 0.0.0.0\n"
      "It can be killed at any time: running work goes on, and a restart on the same folder finds\n"
      "every job. A limit of 0 is none.");
  command->add_option("--config", *file, "YAML settings; environment and flags are stronger");
  for (const Flag& flag : kFlags) {
    command->add_option(FlagOf(flag.key), (*flags)[flag.key], flag.help);
  }
}

}  // namespace lepton::cli
