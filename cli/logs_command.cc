#include <cstdio>

#include "cli/api_client.h"
#include "cli/output.h"

namespace lepton::cli {
namespace {

using nlohmann::json;

void PrintLine(const json& line, const std::string& format) {
  if (format == "yaml") {
    // A list that grows: each line is an item.
    std::fputs(Document(json::array({line}), format).c_str(), stdout);
  } else if (format == "json") {
    std::printf("%s\n", line.dump(-1, ' ', false, json::error_handler_t::replace).c_str());
  } else {
    std::printf("%s | %s\n", Text(line, "task_id").c_str(),
                line.value("line", std::string()).c_str());
  }
}

int Logs(const Globals& globals, const std::string& id, bool follow) {
  Result<std::unique_ptr<ApiClient>> client = ApiClient::FromGlobals(globals);
  if (!client.ok()) return Fail(client.status());
  const std::string target = "/v1/jobs/" + UrlEncode(id) + "/logs";
  if (follow) {
    // A wrong URL is no coordinator that may come back.
    const Result<json> there = (*client)->Get("/v1/jobs/" + UrlEncode(id));
    if (!there.ok()) return Fail(there.status());
    const Status status =
        (*client)->Follow(target + "?follow=1", [&](const http::SseParser::Event& event) {
          if (event.event == "end") return false;
          const json line = json::parse(event.data, nullptr, false);
          if (line.is_object()) PrintLine(line, globals.output);
          std::fflush(stdout);
          return true;
        });
    return status.ok() ? kExitOk : Fail(status);
  }
  std::string after;
  for (;;) {
    const Result<json> page = (*client)->Get(target + (after.empty() ? "" : "?after=" + after));
    if (!page.ok()) return Fail(page.status());
    const json items = page->value("items", json::array());
    for (const json& line : items) PrintLine(line, globals.output);
    const std::string next = Text(*page, "next_after");
    if (items.empty() || next == after || next == "-") return kExitOk;
    after = next;
  }
}

}  // namespace

void AddLogs(CLI::App& app, Globals& globals) {
  auto id = std::make_shared<std::string>();
  auto follow = std::make_shared<bool>(false);
  CLI::App* command = AddAction(app, globals, "logs", "Print what a job's tasks wrote",
                                [&globals, id, follow] { return Logs(globals, *id, *follow); });
  command->add_option("job", *id, "The job's id")->required();
  command->add_flag("-f,--follow", *follow, "Go on until the job ends");
}

}  // namespace lepton::cli
