#include <cstdio>
#include <filesystem>

#include "cli/api_client.h"
#include "cli/import_watch.h"
#include "cli/output.h"
#include "runtime/base/file.h"
#include "runtime/http/http.h"
#include "runtime/spec/job_spec.h"
#include "storage/datasets/folder_pack.h"

namespace lepton::cli {
namespace {

using nlohmann::json;

struct AddOptions {
  std::string name, file, format = "auto", token_type = "auto", uri;
};

// What to send: a file as it is, a folder of pictures as an archive, nothing for a URI.
Result<std::string> BodyOf(const AddOptions& options, std::string* filename) {
  constexpr uint64_t kLimit = uint64_t{4} << 30;
  if (!options.uri.empty()) return std::string();
  *filename = std::filesystem::path(options.file).filename();
  if (std::filesystem::is_directory(options.file)) {
    *filename = "folder.tar";
    return storage::PackFolder(options.file, kLimit);
  }
  return ReadFile(options.file == "-" ? "/dev/stdin" : options.file, kLimit);
}

std::string Target(const AddOptions& options, const std::string& filename) {
  std::string target = "/v1/datasets/" + UrlEncode(options.name) + "?format=" + options.format +
                       "&token_type=" + options.token_type;
  if (!options.uri.empty()) {
    std::string uri = options.uri;
    if (uri.find("://") == std::string::npos) {
      uri = http::FileUri(std::filesystem::absolute(uri).lexically_normal());
    }
    return target + "&uri=" + UrlEncode(uri);
  }
  return target + "&filename=" + UrlEncode(filename);
}

int Add(const Globals& globals, const AddOptions& options) {
  if (options.uri.empty() == options.file.empty()) {
    return Fail(InvalidArgument("data add: give a file or folder to upload, or --uri"));
  }
  std::string filename;
  Result<std::string> bytes = BodyOf(options, &filename);
  if (!bytes.ok()) return Fail(bytes.status());
  Result<std::unique_ptr<ApiClient>> client = ApiClient::FromGlobals(globals);
  if (!client.ok()) return Fail(client.status());
  const Result<http::Response> response =
      PostWithProgress(**client, "dataset " + options.name, Target(options, filename),
                       *std::move(bytes), {{"Content-Type", "application/octet-stream"}});
  if (!response.ok()) {
    const Status& status = response.status();
    const bool large = status.code() == StatusCode::kResourceExhausted && options.uri.empty();
    return Fail((large ? Status(status.code(), status.message() +
                                                   "; where the coordinator can read the file, "
                                                   "name it with --uri instead of uploading it")
                       : status)
                    .WithContext(options.uri.empty() ? options.file : options.uri));
  }
  const json version = json::parse(response->body, nullptr, false);
  if (globals.output != "table") {
    std::fputs(Document(version, globals.output).c_str(), stdout);
    return kExitOk;
  }
  const size_t columns = version.value("columns", json::array()).size();
  const size_t classes = version.value("classes", json::array()).size();
  std::printf("dataset %s@%s: %s, %s rows%s\n", Text(version, "name").c_str(),
              Text(version, "version").c_str(), Text(version, "format").c_str(),
              Text(version, "rows").c_str(),
              columns > 0   ? (", " + std::to_string(columns) + " columns").c_str()
              : classes > 0 ? (", " + std::to_string(classes) + " classes").c_str()
                            : "");
  return kExitOk;
}

int ListDatasets(const Globals& globals) {
  Result<std::unique_ptr<ApiClient>> client = ApiClient::FromGlobals(globals);
  if (!client.ok()) return Fail(client.status());
  const Result<json> list = (*client)->List("/v1/datasets");
  if (!list.ok()) return Fail(list.status());
  if (globals.output != "table") {
    std::fputs(Document(*list, globals.output).c_str(), stdout);
    return kExitOk;
  }
  Table table({"DATASET", "LATEST", "VERSIONS"});
  for (const json& item : *list) {
    table.Row({Text(item, "name"), Text(item, "latest"),
               std::to_string(item.value("versions", json::array()).size())});
  }
  std::fputs(table.ToString().c_str(), stdout);
  return kExitOk;
}

int Profile(const Globals& globals, const std::string& text) {
  const Result<spec::Reference> reference = spec::ParseReference("dataset", text);
  if (!reference.ok()) return Fail(reference.status());
  Result<std::unique_ptr<ApiClient>> client = ApiClient::FromGlobals(globals);
  if (!client.ok()) return Fail(client.status());
  std::string version = reference->reference;
  if (version.empty()) {
    const Result<json> dataset = (*client)->Get("/v1/datasets/" + UrlEncode(reference->name));
    if (!dataset.ok()) return Fail(dataset.status());
    version = Text(*dataset, "latest");
  }
  const Result<json> profile = (*client)->Get("/v1/datasets/" + UrlEncode(reference->name) +
                                              "/versions/" + UrlEncode(version) + "/profile");
  if (!profile.ok()) return Fail(profile.status());
  if (globals.output != "table") {
    std::fputs(Document(*profile, globals.output).c_str(), stdout);
    return kExitOk;
  }
  std::printf("%s@%s: %s rows\n", reference->name.c_str(), version.c_str(),
              Text(*profile, "rows").c_str());
  if (!profile->contains("columns")) {
    for (const auto& [key, value] : profile->items()) {
      if (key != "rows") std::printf("  %s: %s\n", key.c_str(), value.dump().c_str());
    }
    return kExitOk;
  }
  Table table({"COLUMN", "TYPE", "MISSING", "DISTINCT", "MIN", "MEAN", "MAX", "STDDEV"});
  for (const json& column : profile->value("columns", json::array())) {
    table.Row({Text(column, "name"), Text(column, "type"), Text(column, "missing"),
               Text(column, "distinct"), Text(column, "min"), Text(column, "mean"),
               Text(column, "max"), Text(column, "stddev")});
  }
  std::fputs(table.ToString().c_str(), stdout);
  return kExitOk;
}

}  // namespace

void AddData(CLI::App& app, Globals& globals) {
  CLI::App* data = app.add_subcommand("data", "Datasets: register, list, look into");
  data->require_subcommand(1)->fallthrough();
  auto name = std::make_shared<std::string>();
  auto options = std::make_shared<AddOptions>();
  CLI::App* add = AddAction(*data, globals, "add", "Register a new version of a dataset",
                            [=, &globals] { return Add(globals, *options); });
  add->footer(
      "Examples:\n"
      "  lepton data add digits digits.csv             a table: CSV, TSV or JSON Lines\n"
      "  lepton data add shakespeare plays.txt         text for a language model\n"
      "  lepton data add webtext train.bin --token-type u16\n"
      "  lepton data add pets pets/                    pictures, a subfolder a class\n"
      "  lepton data add pets --uri /data/pets         read by the coordinator, not uploaded");
  add->add_option("name", options->name, "The dataset's name")->required();
  add->add_option("file", options->file,
                  "A file, an archive or a folder of pictures; - for standard input");
  add->add_option("--format", options->format, "What it is [by suffix, then by content]")
      ->check(CLI::IsMember({"auto", "csv", "jsonl", "text", "tokens", "images"}));
  add->add_option("--token-type", options->token_type, "Of a raw file of token ids [u16]")
      ->check(CLI::IsMember({"auto", "u16", "u32"}));
  add->add_option("--uri", options->uri,
                  "A path within the coordinator's file roots, in place of an upload");
  AddAction(*data, globals, "ls", "List datasets", [&globals] { return ListDatasets(globals); });
  CLI::App* profile = AddAction(*data, globals, "profile",
                                "Types, ranges and gaps of each column; counts of what has none",
                                [=, &globals] { return Profile(globals, *name); });
  profile->add_option("dataset", *name, "name or name@version")->required();
}

}  // namespace lepton::cli
