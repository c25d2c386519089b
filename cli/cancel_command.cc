#include <cstdio>

#include "cli/api_client.h"
#include "cli/output.h"

namespace lepton::cli {

void AddCancel(CLI::App& app, Globals& globals) {
  auto ids = std::make_shared<std::vector<std::string>>();
  CLI::App* command = AddAction(app, globals, "cancel", "Stop jobs", [&globals, ids] {
    Result<std::unique_ptr<ApiClient>> client = ApiClient::FromGlobals(globals);
    if (!client.ok()) return Fail(client.status());
    int status = kExitOk;
    nlohmann::json jobs = nlohmann::json::array();  // those that were stopped
    for (const std::string& id : *ids) {
      const Result<nlohmann::json> job =
          (*client)->Send("POST", "/v1/jobs/" + UrlEncode(id) + ":cancel", nullptr);
      if (!job.ok()) {
        status = Fail(job.status());
      } else if (globals.output == "table") {
        std::printf("job %s %s\n", id.c_str(), Text(*job, "state").c_str());
      } else {
        jobs.push_back(*job);
      }
    }
    if (globals.output != "table") std::fputs(Document(jobs, globals.output).c_str(), stdout);
    return status;
  });
  command->add_option("jobs", *ids, "Their ids")->required();
}

}  // namespace lepton::cli
