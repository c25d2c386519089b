#include <cstdio>

#include "cli/api_client.h"
#include "cli/output.h"

namespace lepton::cli {
namespace {

using nlohmann::json;

int Ps(const Globals& globals, const std::string& state, bool all) {
  Result<std::unique_ptr<ApiClient>> client = ApiClient::FromGlobals(globals);
  if (!client.ok()) return Fail(client.status());
  const Result<json> jobs =
      (*client)->List(state.empty() ? "/v1/jobs" : "/v1/jobs?state=" + UrlEncode(state));
  if (!jobs.ok()) return Fail(jobs.status());
  if (globals.output != "table") {
    std::fputs(Document(*jobs, globals.output).c_str(), stdout);
    return kExitOk;
  }
  const int64_t now = RealClock().WallMs();
  Table table({"JOB", "NAME", "KIND", "STATE", "STEP", "ATTEMPT", "AGE", "REASON"});
  for (const json& job : *jobs) {
    const double total = Number(job, "progress.total_steps");
    const double finished = Number(job, "finished_ms");
    if (!all && state.empty() && finished > 0 && static_cast<double>(now) - finished > 86'400'000) {
      continue;
    }
    table.Row({Text(job, "id"), Text(job, "name"), Text(job, "kind"), Text(job, "state"),
               total > 0 ? Fixed(Number(job, "progress.step"), 0) + "/" + Fixed(total, 0) : "-",
               Text(job, "attempt"), Age(static_cast<int64_t>(Number(job, "submitted_ms")), now),
               Text(job, "reason")});
  }
  std::fputs(table.ToString().c_str(), stdout);
  return kExitOk;
}

}  // namespace

void AddPs(CLI::App& app, Globals& globals) {
  auto state = std::make_shared<std::string>();
  auto all = std::make_shared<bool>(false);
  CLI::App* command = AddAction(app, globals, "ps", "List jobs",
                                [&globals, state, all] { return Ps(globals, *state, *all); });
  command->add_option("--state", *state, "Only jobs in this state");
  command->add_flag("-a,--all", *all, "Also those that ended more than a day ago");
}

}  // namespace lepton::cli
