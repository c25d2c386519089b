#include <cstdio>

#include "cli/follow_job.h"
#include "cli/import_watch.h"
#include "cli/output.h"
#include "cli/spec_file.h"

namespace lepton::cli {
namespace {

using nlohmann::json;

struct SubmitOptions {
  std::string file, id, idempotency_key;
  bool wait = false, dry_run = false;
};

void PrintPlan(const json& plan) {
  Table table({"PLAN", ""});
  for (const auto& [key, value] : Items(plan, "plan")) {
    table.Row({key, value.is_string() ? value.get<std::string>() : value.dump()});
  }
  std::fputs(table.ToString().c_str(), stdout);
}

// What the spec names is not there, or is more than the pool has: refused input, too.
int FailRefused(const Status& status) {
  const int exit = Fail(status);
  const bool refused = status.code() == StatusCode::kNotFound ||
                       status.code() == StatusCode::kFailedPrecondition ||
                       status.code() == StatusCode::kAlreadyExists;
  return refused ? kExitUsage : exit;
}

int Submit(const Globals& globals, const SubmitOptions& options) {
  // Refused here already, so that a wrong spec needs no server to say so.
  const Result<SpecFile> file = LoadSpecFile(options.file);
  if (!file.ok()) return FailRefused(file.status());
  Result<std::unique_ptr<ApiClient>> client = ApiClient::FromGlobals(globals);
  if (!client.ok()) return Fail(client.status());
  std::string target = "/v1/jobs";
  if (options.dry_run) target += "?dry_run=1";
  if (!options.id.empty()) {
    target += (options.dry_run ? "&id=" : "?id=") + UrlEncode(options.id);
  }
  http::Headers headers = {{"Content-Type", "application/json"}};
  if (!options.idempotency_key.empty()) headers.emplace("Idempotency-Key", options.idempotency_key);
  const Result<http::Response> response =
      PostWithProgress(**client, "job " + file->spec.name, target, file->document.dump(), headers);
  if (!response.ok()) return FailRefused(response.status());
  json job = json::parse(response->body, nullptr, false);
  if (options.dry_run) {
    if (globals.output == "table") {
      PrintPlan(job);
    } else {
      std::fputs(Document(job, globals.output).c_str(), stdout);
    }
    return kExitOk;
  }
  const std::string id = Text(job, "id");
  if (options.wait) {
    if (globals.output == "table") {
      std::printf("job %s %s\n", id.c_str(),
                  response->status == 201 ? "submitted" : "was submitted before");
    }
    std::fflush(stdout);
    const Result<json> final_job = FollowJob(**client, id);
    if (!final_job.ok()) return Fail(final_job.status());
    job = *final_job;
  }
  if (globals.output != "table") {
    std::fputs(Document(job, globals.output).c_str(), stdout);
  } else if (!options.wait) {
    std::printf("job %s %s\n", id.c_str(), Text(job, "state").c_str());
  } else {
    PrintEnd(job);
  }
  return options.wait ? JobExitStatus(job) : kExitOk;
}

}  // namespace

void AddSubmit(CLI::App& app, Globals& globals) {
  auto options = std::make_shared<SubmitOptions>();
  CLI::App* command =
      AddAction(app, globals, "submit", "Submit a job spec (YAML or JSON) to the coordinator",
                [&globals, options] { return Submit(globals, *options); });
  command->footer(
      "Examples:\n"
      "  lepton submit job.yaml                      prints the job's id and returns\n"
      "  lepton submit job.yaml --wait -o json       waits; the whole job as JSON\n"
      "  lepton submit job.yaml --dry-run            where it would run, and what it needs\n"
      "  lepton submit job.yaml --id nightly-0412    safe to repeat: the same job answers");
  command->add_option("spec", options->file, "The spec's file")->required();
  command->add_flag("--wait", options->wait, "Wait for the end; exit with the job's status");
  command->add_flag("--dry-run", options->dry_run, "Check and plan; start nothing");
  command->add_option("--id", options->id, "The job's id, so that repeating is safe");
  command->add_option("--idempotency-key", options->idempotency_key, "The same, for scripts");
}

}  // namespace lepton::cli
