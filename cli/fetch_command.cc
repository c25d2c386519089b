#include <cstdio>

#include "cli/api_client.h"
#include "cli/output.h"
#include "cli/run_results.h"

namespace lepton::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

int Fetch(const Globals& globals, const std::string& id, const std::string& text) {
  Result<std::unique_ptr<ApiClient>> client = ApiClient::FromGlobals(globals);
  if (!client.ok()) return Fail(client.status());
  const Result<json> job = (*client)->Get("/v1/jobs/" + UrlEncode(id));
  if (!job.ok()) return Fail(job.status());
  const fs::path folder = fs::absolute(text.empty() ? fs::path(id) : fs::path(text));
  std::error_code ignored;
  const bool fresh = !fs::exists(folder, ignored);
  if (!fresh && !fs::is_empty(folder, ignored)) {
    return Fail(FailedPrecondition(folder.string() + ": is there and not empty; name another"));
  }
  const Status saved = SaveResults(**client, *job, folder);
  if (!saved.ok() && fresh) fs::remove_all(folder, ignored);  // so that it can be asked for again
  if (!saved.ok()) return Fail(saved);
  PrintAnswer({{"job", id}, {"folder", folder.string()}}, globals.output, folder.string());
  return kExitOk;
}

}  // namespace

void AddFetch(CLI::App& app, Globals& globals) {
  auto id = std::make_shared<std::string>();
  auto folder = std::make_shared<std::string>();
  CLI::App* command = AddAction(app, globals, "fetch", "Save a job's results here",
                                [=, &globals] { return Fetch(globals, *id, *folder); });
  command->footer(
      "What `lepton run` leaves in its folder: the files that the job made (predictions of a batch "
      "job),\nits model, metrics, events, log and job.json.\n"
      "Example: lepton fetch nightly-0412 predictions");
  command->add_option("job", *id, "The job's id")->required();
  command->add_option("folder", *folder, "A new folder [the job's id]");
}

}  // namespace lepton::cli
