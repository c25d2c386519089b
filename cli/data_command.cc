#include <cstdio>

#include "cli/api_client.h"
#include "cli/output.h"
#include "runtime/base/file.h"
#include "runtime/spec/job_spec.h"

namespace lepton::cli {
namespace {

using nlohmann::json;

int Add(const Globals& globals, const std::string& name, const std::string& file) {
  Result<std::string> bytes = ReadFile(file == "-" ? "/dev/stdin" : file);
  if (!bytes.ok()) return Fail(bytes.status());
  Result<std::unique_ptr<ApiClient>> client = ApiClient::FromGlobals(globals);
  if (!client.ok()) return Fail(client.status());
  const Result<http::Response> response = (*client)->Raw(
      "POST", "/v1/datasets/" + UrlEncode(name), *std::move(bytes), {{"Content-Type", "text/csv"}});
  if (!response.ok()) return Fail(response.status().WithContext(file));
  const json version = json::parse(response->body, nullptr, false);
  if (globals.output != "table") {
    std::fputs(Document(version, globals.output).c_str(), stdout);
  } else {
    std::printf("dataset %s@%s: %s rows, %zu columns\n", Text(version, "name").c_str(),
                Text(version, "version").c_str(), Text(version, "rows").c_str(),
                version.value("columns", json::array()).size());
  }
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
  auto file = std::make_shared<std::string>();
  CLI::App* add = AddAction(*data, globals, "add", "Upload a CSV as a new version of a dataset",
                            [=, &globals] { return Add(globals, *name, *file); });
  add->add_option("name", *name, "The dataset's name")->required();
  add->add_option("file", *file, "CSV with a header row; - for standard input")->required();
  AddAction(*data, globals, "ls", "List datasets", [&globals] { return ListDatasets(globals); });
  CLI::App* profile = AddAction(*data, globals, "profile", "Types, ranges and gaps of each column",
                                [=, &globals] { return Profile(globals, *name); });
  profile->add_option("dataset", *name, "name or name@version")->required();
}

}  // namespace lepton::cli
