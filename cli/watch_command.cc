#include <cstdio>

#include "cli/follow_job.h"
#include "cli/output.h"

namespace lepton::cli {

void AddWatch(CLI::App& app, Globals& globals) {
  auto id = std::make_shared<std::string>();
  CLI::App* command =
      AddAction(app, globals, "watch", "Follow a job's progress to its end; exit with its status",
                [&globals, id] {
                  Result<std::unique_ptr<ApiClient>> client = ApiClient::FromGlobals(globals);
                  if (!client.ok()) return Fail(client.status());
                  // A wrong URL is no coordinator that may come back.
                  const auto there = (*client)->Get("/v1/jobs/" + UrlEncode(*id));
                  if (!there.ok()) return Fail(there.status());
                  const Result<nlohmann::json> job = FollowJob(**client, *id);
                  if (!job.ok()) return Fail(job.status());
                  if (globals.output != "table") {
                    std::fputs(Document(*job, globals.output).c_str(), stdout);
                  } else {
                    PrintEnd(*job);
                  }
                  return JobExitStatus(*job);
                });
  command->add_option("job", *id, "The job's id")->required();
}

}  // namespace lepton::cli
