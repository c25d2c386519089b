#include <cstdio>
#include <thread>

#include "cli/api_client.h"
#include "cli/output.h"

namespace lepton::cli {
namespace {

using nlohmann::json;

struct DeployOptions {
  std::string name, model, max_wait, timeout, precision;
  int replicas = 1, slots = -1, max_batch = 0;
  bool no_wait = false;
};

// Why there are fewer replicas than wanted: what they wait for, or what the last one died of.
std::string Why(const json& deployment) {
  const std::string reason = Text(deployment, "reason");
  if (reason != "-" || Number(deployment, "ready") >= Number(deployment, "replicas")) return reason;
  return Text(deployment, "error");
}

Result<json> WaitUntilReady(ApiClient& client, const std::string& name, double replicas) {
  ProgressLine progress;
  const Deadline deadline = Deadline::In(std::chrono::seconds(60));
  for (;;) {
    LEPTON_ASSIGN_OR_RETURN(json deployment, client.Get("/v1/deployments/" + UrlEncode(name)));
    if (Number(deployment, "ready") >= replicas) return deployment;
    progress.Show(name + " " + Text(deployment, "state") + "  " + Text(deployment, "ready") + "/" +
                  Fixed(replicas, 0) + " replicas ready" +
                  (Why(deployment) == "-" ? "" : "  " + Why(deployment)));
    if (deadline.Expired()) {
      return DeadlineExceeded("deployment " + name + ": " + Text(deployment, "ready") + " of " +
                              Fixed(replicas, 0) + " replicas are ready after 60s (" +
                              Why(deployment) + ")");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

void PrintDeployments(const Globals& globals, const json& list) {
  if (globals.output != "table") {
    std::fputs(Document(list, globals.output).c_str(), stdout);
    return;
  }
  Table table({"DEPLOYMENT", "MODEL", "STATE", "READY", "REPLICAS", "REASON"});
  for (const json& item : list.is_array() ? list : json::array({list})) {
    table.Row({Text(item, "name"), Text(item, "model") + "@" + Text(item, "version"),
               Text(item, "state"), Text(item, "ready"), Text(item, "replicas"), Why(item)});
  }
  std::fputs(table.ToString().c_str(), stdout);
}

int Deploy(const Globals& globals, const DeployOptions& options) {
  if (options.name.empty() || options.model.empty()) {
    return Fail(
        InvalidArgument("deploy: needs a name and --model, such as: lepton deploy digits "
                        "--model digits@1 --replicas 2"));
  }
  Result<std::unique_ptr<ApiClient>> client = ApiClient::FromGlobals(globals);
  if (!client.ok()) return Fail(client.status());
  json body = {{"name", options.name}, {"model", options.model}, {"replicas", options.replicas}};
  if (options.slots >= 0) body["slots_per_replica"] = options.slots;
  if (options.max_batch > 0) body["max_batch"] = options.max_batch;
  if (!options.max_wait.empty()) body["max_wait"] = options.max_wait;
  if (!options.timeout.empty()) body["timeout"] = options.timeout;
  if (!options.precision.empty()) body["precision"] = options.precision;
  Result<json> deployment = (*client)->Send("POST", "/v1/deployments", body);
  if (deployment.ok() && !options.no_wait) {
    deployment = WaitUntilReady(**client, options.name, options.replicas);
  }
  if (!deployment.ok()) return Fail(deployment.status());
  PrintDeployments(globals, *deployment);
  return kExitOk;
}

int ListDeployments(const Globals& globals) {
  Result<std::unique_ptr<ApiClient>> client = ApiClient::FromGlobals(globals);
  if (!client.ok()) return Fail(client.status());
  const Result<json> list = (*client)->List("/v1/deployments");
  if (!list.ok()) return Fail(list.status());
  PrintDeployments(globals, *list);
  return kExitOk;
}

// Its replicas answer what they have taken on first.
Status WaitUntilGone(ApiClient& client, const std::string& name) {
  ProgressLine progress;
  const Deadline deadline = Deadline::In(std::chrono::seconds(60));
  for (;;) {
    const Result<json> deployment = client.Get("/v1/deployments/" + UrlEncode(name));
    if (deployment.status().code() == StatusCode::kNotFound) return Status::Ok();
    LEPTON_RETURN_IF_ERROR(deployment.status());
    progress.Show(name + " " + Text(*deployment, "state") + "  " + Text(*deployment, "replicas") +
                  " replicas");
    if (deadline.Expired()) {
      return DeadlineExceeded("deployment " + name +
                              " is still being deleted after 60s; its replicas are stopped as soon "
                              "as their workers answer");
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

int Remove(const Globals& globals, const std::string& name, bool no_wait) {
  Result<std::unique_ptr<ApiClient>> client = ApiClient::FromGlobals(globals);
  if (!client.ok()) return Fail(client.status());
  Status done = (*client)->Send("DELETE", "/v1/deployments/" + UrlEncode(name), nullptr).status();
  if (done.ok() && !no_wait) done = WaitUntilGone(**client, name);
  if (!done.ok()) return Fail(done);
  PrintAnswer({{"name", name}, {"state", no_wait ? "DELETING" : "DELETED"}}, globals.output,
              "deployment " + name + (no_wait ? " is being deleted" : " deleted"));
  return kExitOk;
}

int Scale(const Globals& globals, const std::string& name, int replicas) {
  Result<std::unique_ptr<ApiClient>> client = ApiClient::FromGlobals(globals);
  if (!client.ok()) return Fail(client.status());
  const Result<json> done = (*client)->Send("POST", "/v1/deployments/" + UrlEncode(name) + ":scale",
                                            {{"replicas", replicas}});
  if (!done.ok()) return Fail(done.status());
  PrintAnswer(*done, globals.output, "deployment " + name + " changed");
  return kExitOk;
}

}  // namespace

void AddDeploy(CLI::App& app, Globals& globals) {
  auto options = std::make_shared<DeployOptions>();
  CLI::App* command = AddAction(app, globals, "deploy", "Serve a registered model behind HTTP",
                                [&globals, options] { return Deploy(globals, *options); });
  command->footer(
      "Examples:\n"
      "  lepton deploy digits --model digits@3 --replicas 2\n"
      "  lepton deploy digits --model digits@prod --max-batch 64 --max-wait 5ms\n"
      "  lepton deploy digits --model digits@3 --precision int8\n"
      "  lepton deploy scale digits 4\n"
      "  curl $LEPTON_COORDINATOR/v2/models/digits/infer -d '{\"inputs\": [...]}'");
  command->add_option("name", options->name, "The deployment's name");
  command->add_option("--model", options->model, "name@version or name@alias");
  command->add_option("--replicas", options->replicas, "Copies")->check(CLI::Range(0, 64));
  command->add_option("--slots", options->slots,
                      "Slots that each takes; 0 shares without counting");
  command->add_option("--max-batch", options->max_batch, "Rows in one forward pass");
  command->add_option("--max-wait", options->max_wait, "For a batch to fill, such as 2ms");
  command->add_option("--timeout", options->timeout, "Per request, such as 10s");
  command->add_option("--precision", options->precision,
                      "Of products and convolutions: model (as it was trained), f32, bf16 or int8");
  command->add_flag("--no-wait", options->no_wait, "Do not wait for the replicas to be ready");
  AddAction(*command, globals, "ls", "List deployments",
            [&globals] { return ListDeployments(globals); });
  auto name = std::make_shared<std::string>();
  auto replicas = std::make_shared<int>(1);
  auto no_wait = std::make_shared<bool>(false);
  CLI::App* remove = AddAction(*command, globals, "rm", "Stop serving",
                               [=, &globals] { return Remove(globals, *name, *no_wait); });
  remove->add_option("name", *name, "The deployment's name")->required();
  remove->add_flag("--no-wait", *no_wait, "Do not wait for the replicas to end");
  CLI::App* scale = AddAction(*command, globals, "scale", "Change the number of replicas",
                              [=, &globals] { return Scale(globals, *name, *replicas); });
  scale->add_option("name", *name, "The deployment's name")->required();
  scale->add_option("replicas", *replicas, "How many")->required()->check(CLI::Range(0, 64));
}

}  // namespace lepton::cli
