#include <algorithm>
#include <cstdio>

#include "cli/api_client.h"
#include "cli/output.h"
#include "cli/recoveries.h"

namespace lepton::cli {
namespace {

using nlohmann::json;

void PrintEvents(const json& events) {
  std::printf("\nEVENTS\n");
  const json items = events.value("items", json::array());
  const bool trials = std::any_of(items.begin(), items.end(), [](const json& event) {
    return Number(event, "trial", -1) >= 0;
  });
  std::vector<std::string> heads = {"SEQ", "TIME", "STATE", "REASON", "ATTEMPT", "MESSAGE"};
  if (trials) heads.insert(heads.begin() + 2, "TRIAL");
  Table table(heads);
  for (const json& event : items) {
    char when[32];
    const auto time = FormatWallMs(static_cast<int64_t>(Number(event, "time_ms")), when);
    std::vector<std::string> row = {Text(event, "seq"),     std::string(time),
                                    Text(event, "state"),   Text(event, "reason_code"),
                                    Text(event, "attempt"), Text(event, "message")};
    const bool own = Number(event, "trial", -1) < 0;
    if (trials) row.insert(row.begin() + 2, own ? "-" : Text(event, "trial"));
    table.Row(row);
  }
  std::fputs(table.ToString().c_str(), stdout);
}

// "optimizer.lr=0.001118 model.hidden=[64,64]": numbers are rounded, `-o json` has them whole.
std::string TrialValues(const json& trial) {
  std::string text;
  for (const auto& [path, value] : Items(trial, "values")) {
    text += (text.empty() ? "" : "  ") + path + "=";
    text += value.is_number_float() ? Text({{"value", value}}, "value") : value.dump();
  }
  return text;
}

void PrintTrials(const json& trials) {
  if (trials.empty()) return;
  std::printf("\nTRIALS\n");
  Table table({"TRIAL", "STATE", "RUNG", "STEP", "SCORE", "VALUES", "ERROR"});
  for (const json& trial : trials) {
    table.Row({Text(trial, "id"), Text(trial, "state"), Text(trial, "rung"), Text(trial, "step"),
               Text(trial, "score"), TrialValues(trial), Text(trial, "error")});
  }
  std::fputs(table.ToString().c_str(), stdout);
}

void PrintJob(const json& job) {
  Table table({"FIELD", "VALUE"});
  for (const char* key : {"id",
                          "name",
                          "kind",
                          "state",
                          "reason_code",
                          "reason",
                          "queue",
                          "priority",
                          "attempt",
                          "group.ranks",
                          "group.epoch",
                          "recovery_count",
                          "progress.step",
                          "progress.total_steps",
                          "progress.epoch",
                          "progress.samples_per_second",
                          "progress.samples",
                          "progress.sample_ids",
                          "shards.count",
                          "shards.done",
                          "shards.shard_rows",
                          "shards.taken_over",
                          "shards.doubled",
                          "shards.done_twice",
                          "shards.eta_seconds",
                          "search.metric",
                          "search.done",
                          "search.failed",
                          "search.best_trial",
                          "search.best_score",
                          "result.model",
                          "result.version",
                          "result.weights_sha256",
                          "result.parameters"}) {
    if (Text(job, key) != "-") table.Row({key, Text(job, key)});
  }
  for (const auto& [key, value] : Items(job, "metrics")) {
    table.Row({key, Text(job["metrics"], key)});
  }
  std::fputs(table.ToString().c_str(), stdout);
  const json tasks = job.value("tasks", json::array());
  if (tasks.empty()) return;
  std::printf("\nTASKS\n");
  Table ranks({"TASK", "RANK", "WORKER", "HOST", "STATE"});
  for (const json& task : tasks) {
    ranks.Row({Text(task, "task_id"), Text(task, "rank"), Text(task, "worker_id"),
               Text(task, "host"), Text(task, "state")});
  }
  std::fputs(ranks.ToString().c_str(), stdout);
}

int Describe(const Globals& globals, const std::string& id) {
  Result<std::unique_ptr<ApiClient>> client = ApiClient::FromGlobals(globals);
  if (!client.ok()) return Fail(client.status());
  const std::string target = "/v1/jobs/" + UrlEncode(id);
  const Result<json> job = (*client)->Get(target);
  if (!job.ok()) return Fail(job.status());
  const Result<json> events = (*client)->Get(target + "/events");
  if (!events.ok()) return Fail(events.status());
  json trials = json::array();
  if (Text(*job, "kind") == "tune") {
    const Result<json> listed = (*client)->List(target + "/trials");
    if (listed.ok()) trials = *listed;
  }
  if (globals.output != "table") {
    json all = *job;
    all["events"] = events->value("items", json::array());
    if (!trials.empty()) all["trials"] = trials;
    std::fputs(Document(all, globals.output).c_str(), stdout);
    return kExitOk;
  }
  PrintJob(*job);
  const std::string recoveries = RecoveriesTable(*job);
  if (!recoveries.empty()) std::printf("\nRECOVERIES\n%s", recoveries.c_str());
  PrintTrials(trials);
  PrintEvents(*events);
  return kExitOk;
}

}  // namespace

void AddDescribe(CLI::App& app, Globals& globals) {
  auto id = std::make_shared<std::string>();
  CLI::App* command =
      AddAction(app, globals, "describe", "Show a job: state, tasks, trials, metrics and events",
                [&globals, id] { return Describe(globals, *id); });
  command->add_option("job", *id, "The job's id")->required();
}

}  // namespace lepton::cli
