#include "cli/run_results.h"

#include "cli/model_tools.h"
#include "cli/output.h"
#include "runtime/base/file.h"

namespace lepton::cli {
namespace {

using nlohmann::json;

// All pages of a job's feed, one line an item.
Result<std::string> Feed(ApiClient& client, const std::string& target, bool as_text) {
  std::string lines, after;
  for (;;) {
    LEPTON_ASSIGN_OR_RETURN(const json page,
                            client.Get(target + (after.empty() ? "" : "?after=" + after)));
    const json items = page.value("items", json::array());
    for (const json& item : items) {
      lines += as_text ? Text(item, "task_id") + " | " + item.value("line", std::string())
                       : item.dump(-1, ' ', false, json::error_handler_t::replace);
      lines += '\n';
    }
    const std::string next = Text(page, "next_after");
    if (items.empty() || next == "-" || next == after) return lines;
    after = next;
  }
}

}  // namespace

Status SaveResults(ApiClient& client, const json& job, const std::filesystem::path& folder) {
  LEPTON_RETURN_IF_ERROR(MakeFolders(folder));
  const std::string target = "/v1/jobs/" + UrlEncode(Text(job, "id"));
  LEPTON_RETURN_IF_ERROR(WriteFileAtomic(folder / "job.json", job.dump(2) + "\n"));
  LEPTON_ASSIGN_OR_RETURN(const std::string metrics, Feed(client, target + "/metrics", false));
  LEPTON_RETURN_IF_ERROR(WriteFileAtomic(folder / "metrics.jsonl", metrics));
  LEPTON_ASSIGN_OR_RETURN(const std::string events, Feed(client, target + "/events", false));
  LEPTON_RETURN_IF_ERROR(WriteFileAtomic(folder / "events.jsonl", events));
  LEPTON_ASSIGN_OR_RETURN(const std::string log, Feed(client, target + "/logs", true));
  LEPTON_RETURN_IF_ERROR(WriteFileAtomic(folder / "log.txt", log));
  if (Text(job, "kind") == "tune") {
    LEPTON_ASSIGN_OR_RETURN(const json trials, client.List(target + "/trials"));
    LEPTON_RETURN_IF_ERROR(WriteFileAtomic(folder / "trials.json", trials.dump(2) + "\n"));
  }
  const json made = job.value("result", json::object()).value("files", json::array());
  for (const json& name : made) {
    const std::string file = name.get<std::string>();
    LEPTON_RETURN_IF_ERROR(WriteFileAtomic(folder / file, [&](int fd) {
      return client.Download(target + "/files/" + UrlEncode(file),
                             [fd](std::string_view bytes) { return WriteAll(fd, bytes); });
    }));
  }
  if (Text(job, "result.manifest") == "-") return Status::Ok();
  return SaveModel(client, target, folder);
}

}  // namespace lepton::cli
