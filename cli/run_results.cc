#include "cli/run_results.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "cli/model_tools.h"
#include "cli/output.h"
#include "runtime/base/file.h"

namespace lepton::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// What any job may leave.
constexpr std::array<std::string_view, 7> kOfJobs = {
    "job.json",    "metrics.jsonl",   "events.jsonl",      "log.txt",
    "trials.json", "predictions.csv", "predictions.jsonl",
};
// And what comes with a model, besides its manifest's further files.
constexpr std::array<std::string_view, 18> kOfModels = {
    "manifest.json",
    "weights.safetensors",
    "graph.onnx",
    "model.onnx",
    "model.onnx.data",
    "model",
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "generation_config.json",
    "preprocessor_config.json",
    "chat_template.jinja",
    "config_sentence_transformers.json",
};

fs::path Canonical(const fs::path& path) {
  std::error_code error;
  fs::path canonical = fs::weakly_canonical(path, error);
  return error ? path : canonical;
}

// Whether `path` is `place` or in it.
bool IsWithin(const fs::path& path, const fs::path& place) {
  const auto [left, _] = std::mismatch(place.begin(), place.end(), path.begin(), path.end());
  return left == place.end();
}

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

Status CheckPlaceOfResults(const SpecFile& file, const fs::path& folder, bool made_by_run) {
  const bool makes_model =
      file.spec.kind != spec::JobKind::kEvaluate && file.spec.kind != spec::JobKind::kBatch;
  std::vector<std::string_view> names(kOfJobs.begin(), kOfJobs.end());
  if (makes_model) names.insert(names.end(), kOfModels.begin(), kOfModels.end());
  const char* elsewhere = "give the run another folder with --out";
  for (const fs::path& input : file.inputs) {
    const fs::path path = Canonical(input);
    bool replaced = makes_model && path == Canonical(folder);  // a model that a run left there
    for (const std::string_view name : names) {
      replaced = replaced || IsWithin(path, Canonical(folder / name));
    }
    if (!replaced) continue;
    return FailedPrecondition(
        input.string() + ": the spec names it, and the results would replace it; " + elsewhere);
  }
  for (const std::string_view name : names) {
    std::error_code ignored;
    if (made_by_run || !fs::exists(fs::symlink_status(folder / name, ignored))) continue;
    return FailedPrecondition((folder / name).string() +
                              ": no run made this, and the results would replace it; " + elsewhere);
  }
  return Status::Ok();
}

Status SaveResults(ApiClient& client, const json& job, const fs::path& folder) {
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
