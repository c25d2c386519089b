#include <cstdio>
#include <filesystem>

#include "cli/api_client.h"
#include "cli/model_tools.h"
#include "cli/output.h"
#include "runtime/base/file.h"
#include "runtime/http/http.h"
#include "runtime/spec/job_spec.h"

namespace lepton::cli {
namespace {

using nlohmann::json;

int ListModels(const Globals& globals) {
  Result<std::unique_ptr<ApiClient>> client = ApiClient::FromGlobals(globals);
  if (!client.ok()) return Fail(client.status());
  const Result<json> list = (*client)->List("/v1/models");
  if (!list.ok()) return Fail(list.status());
  if (globals.output != "table") {
    std::fputs(Document(*list, globals.output).c_str(), stdout);
    return kExitOk;
  }
  Table table({"MODEL", "LATEST", "VERSIONS", "ALIASES"});
  for (const json& item : *list) {
    std::string aliases;
    for (const auto& [alias, version] : Items(item, "aliases")) {
      aliases += (aliases.empty() ? "" : ", ") + alias + "=" + version.dump();
    }
    table.Row({Text(item, "name"), Text(item, "latest"),
               std::to_string(item.value("versions", json::array()).size()), aliases});
  }
  std::fputs(table.ToString().c_str(), stdout);
  return kExitOk;
}

// "digits@prod" -> /v1/models/digits/versions/3.
Result<std::string> VersionPath(ApiClient& client, const std::string& text) {
  LEPTON_ASSIGN_OR_RETURN(const spec::Reference reference, spec::ParseReference("model", text));
  const std::string base = "/v1/models/" + UrlEncode(reference.name);
  LEPTON_ASSIGN_OR_RETURN(const json model, client.Get(base));
  std::string version = reference.reference;
  if (version.empty()) version = Text(model, "latest");
  if (const std::string aliased = Text(model, "aliases." + version); aliased != "-") {
    version = aliased;
  }
  return base + "/versions/" + UrlEncode(version);
}

int Show(const Globals& globals, const std::string& text) {
  Result<std::unique_ptr<ApiClient>> client = ApiClient::FromGlobals(globals);
  if (!client.ok()) return Fail(client.status());
  const Result<std::string> path = VersionPath(**client, text);
  if (!path.ok()) return Fail(path.status());
  const Result<json> version = (*client)->Get(*path);
  if (!version.ok()) return Fail(version.status());
  if (globals.output != "table") {
    std::fputs(Document(*version, globals.output).c_str(), stdout);
    return kExitOk;
  }
  Table table({"FIELD", "VALUE"});
  for (const char* key : {"name", "version", "parameters", "weights_sha256", "manifest", "job_id",
                          "lineage.dataset", "lineage.parent", "lineage.teacher"}) {
    table.Row({key, Text(*version, key)});
  }
  for (const auto& [key, value] : Items(*version, "metrics")) {
    table.Row({key, value.dump()});
  }
  std::fputs(table.ToString().c_str(), stdout);
  return kExitOk;
}

int Pull(const Globals& globals, const std::string& text, const std::string& folder) {
  Result<std::unique_ptr<ApiClient>> client = ApiClient::FromGlobals(globals);
  if (!client.ok()) return Fail(client.status());
  const Result<std::string> path = VersionPath(**client, text);
  if (!path.ok()) return Fail(path.status());
  const Status saved =
      SaveModel(**client, *path, folder, [&](const std::filesystem::path& file, size_t bytes) {
        std::printf("%s (%s)\n", file.c_str(), Bytes(static_cast<double>(bytes)).c_str());
      });
  return saved.ok() ? kExitOk : Fail(saved);
}

int Export(const Globals& globals, const std::string& text, const std::string& file) {
  Result<std::unique_ptr<ApiClient>> client = ApiClient::FromGlobals(globals);
  if (!client.ok()) return Fail(client.status());
  const Result<std::string> path = VersionPath(**client, text);
  if (!path.ok()) return Fail(path.status());
  const auto target = std::filesystem::absolute(file);
  const Status made = target.extension() == ".onnx" ? ExportModel(**client, *path, target)
                                                    : ExportModelFolder(**client, *path, target);
  if (!made.ok()) return Fail(made);
  std::printf("%s\n", target.c_str());
  return kExitOk;
}

struct AddOptions {
  std::string name, file;
  bool by_path = false;
  std::vector<std::string> features, classes;
};

int Add(const Globals& globals, const AddOptions& options) {
  Result<std::unique_ptr<ApiClient>> client = ApiClient::FromGlobals(globals);
  if (!client.ok()) return Fail(client.status());
  const std::string target = "/v1/models/" + UrlEncode(options.name) + "/versions";
  const auto file = std::filesystem::absolute(options.file).lexically_normal();
  Result<json> made = json();
  if (options.by_path || !options.features.empty() || !options.classes.empty()) {
    made = (*client)->Send("POST", target,
                           {{"uri", http::FileUri(file)},
                            {"features", options.features},
                            {"classes", options.classes}});
  } else {
    constexpr uint64_t kLimit = uint64_t{4} << 30;
    const Result<std::string> bytes = std::filesystem::is_directory(file)
                                          ? PackModelFolder(file, kLimit)
                                          : ReadFile(file, kLimit);
    if (!bytes.ok()) return Fail(bytes.status());
    const Result<http::Response> answer =
        (*client)->Raw("POST", target, *bytes, {}, /*timeout=*/std::chrono::hours(24));
    if (answer.status().code() == StatusCode::kResourceExhausted) {
      return Fail(ResourceExhausted(answer.status().message() +
                                    "; where the coordinator can read it, name it with --by-path "
                                    "instead of uploading it"));
    }
    if (!answer.ok()) return Fail(answer.status());
    made = json::parse(answer->body, nullptr, /*allow_exceptions=*/false);
  }
  if (!made.ok()) return Fail(made.status());
  if (globals.output != "table") {
    std::fputs(Document(*made, globals.output).c_str(), stdout);
    return kExitOk;
  }
  std::printf("%s@%s: %s parameters\n", options.name.c_str(), Text(*made, "version").c_str(),
              Text(*made, "parameters").c_str());
  return kExitOk;
}

int Alias(const Globals& globals, const std::string& text, const std::string& alias) {
  const Result<spec::Reference> reference = spec::ParseReference("model", text);
  if (!reference.ok()) return Fail(reference.status());
  const json version = json::parse(reference->reference, nullptr, false);
  if (!version.is_number_unsigned()) {
    return Fail(InvalidArgument("model: '" + text + "' must name a version, such as digits@2"));
  }
  Result<std::unique_ptr<ApiClient>> client = ApiClient::FromGlobals(globals);
  if (!client.ok()) return Fail(client.status());
  const Result<json> done = (*client)->Send(
      "PUT", "/v1/models/" + UrlEncode(reference->name) + "/aliases/" + UrlEncode(alias),
      {{"version", version}});
  if (!done.ok()) return Fail(done.status());
  PrintAnswer(*done, globals.output,
              reference->name + "@" + alias + " is now version " + version.dump());
  return kExitOk;
}

}  // namespace

void AddModel(CLI::App& app, Globals& globals) {
  CLI::App* model = app.add_subcommand("model", "The registry: list, show, fetch, name versions");
  model->require_subcommand(1)->fallthrough();
  auto name = std::make_shared<std::string>();
  auto other = std::make_shared<std::string>(".");
  AddAction(*model, globals, "ls", "List models", [&globals] { return ListModels(globals); });
  CLI::App* show = AddAction(*model, globals, "show", "One version: metrics, digest, lineage",
                             [=, &globals] { return Show(globals, *name); });
  show->add_option("model", *name, "name, name@version or name@alias")->required();
  CLI::App* pull = AddAction(*model, globals, "pull", "Download a version as it is stored",
                             [=, &globals] { return Pull(globals, *name, *other); });
  pull->add_option("model", *name, "name, name@version or name@alias")->required();
  pull->add_option("folder", *other, "Where to put its files; made if it is not there [.]");
  pull->footer(
      "Writes manifest.json and the files that it names: weights.safetensors, a tokenizer. A job\n"
      "may start from, evaluate or ask the folder (model: {from: ./FOLDER}), and `lepton model "
      "add`\n"
      "takes it, also into another registry. For other programs: lepton model export.");
  CLI::App* exported = AddAction(*model, globals, "export",
                                 "Write a version as an ONNX file or a Hugging Face folder",
                                 [=, &globals] { return Export(globals, *name, *other); });
  exported->add_option("model", *name, "name, name@version or name@alias")->required();
  exported->add_option("file", *other, "x.onnx: an ONNX file; else the folder to write")
      ->required();
  exported->footer(
      "Examples:\n"
      "  lepton model export digits@prod digits.onnx    with the preparation of raw features\n"
      "  lepton model export reviews ./reviews          config.json, model.safetensors, tokenizer\n"
      "A folder needs an architecture that the public families have: transformers, vit, resnets.");
  auto add = std::make_shared<AddOptions>();
  CLI::App* added =
      AddAction(*model, globals, "add",
                "Register an ONNX model, a Hugging Face folder or one that a run left",
                [=, &globals] { return Add(globals, *add); });
  added->footer(
      "Examples:\n"
      "  lepton model add digits digits.onnx\n"
      "  lepton model add reviews ./distilbert-reviews      config.json, *.safetensors, "
      "tokenizer.json\n"
      "  lepton model add reviews ./lepton-runs/reviews     what `lepton run` left\n"
      "It is checked before it is stored, and is then a version like any other: lepton deploy,\n"
      "`model: {from: digits@1}` in a job. With --by-path the path is the coordinator's, within\n"
      "its --file-roots.");
  added->add_option("name", add->name, "The model's name")->required();
  added->add_option("file", add->file, "The ONNX file or the folder")->required();
  added->add_flag("--by-path", add->by_path,
                  "Let the coordinator read it: large models, ONNX weights in a second file");
  added
      ->add_option("--features", add->features,
                   "ONNX: names of its features, in order; implies --by-path")
      ->delimiter(',');
  added->add_option("--classes", add->classes, "ONNX: the same of its classes")->delimiter(',');
  CLI::App* alias =
      AddAction(*model, globals, "alias", "Point an alias, such as prod, at a version",
                [=, &globals] { return Alias(globals, *name, *other); });
  alias->add_option("model", *name, "name@version")->required();
  alias->add_option("alias", *other, "The alias")->required();
}

}  // namespace lepton::cli
