#include "cli/spec_file.h"

#include "runtime/base/file.h"

namespace lepton::cli {
namespace fs = std::filesystem;
using nlohmann::json;

namespace {

void MakeUriAbsolute(const fs::path& spec_path, json& document) {
  if (!document.is_object() || !document.contains("dataset")) return;
  json& dataset = document["dataset"];
  if (!dataset.is_object() || !dataset.contains("uri") || !dataset["uri"].is_string()) return;
  const std::string uri = dataset["uri"].get<std::string>();
  if (uri.empty() || uri.find("://") != std::string::npos) return;
  const fs::path path = fs::absolute(spec_path).parent_path() / uri;
  dataset["uri"] = "file://" + path.lexically_normal().string();
}

Result<SpecFile> Load(const std::string& path) {
  LEPTON_ASSIGN_OR_RETURN(const std::string text,
                          ReadFile(path == "-" ? "/dev/stdin" : path, 1 << 20));
  SpecFile file;
  LEPTON_ASSIGN_OR_RETURN(file.document, spec::DocumentToJson(text));
  MakeUriAbsolute(path, file.document);
  LEPTON_ASSIGN_OR_RETURN(file.spec, spec::JobSpecFromJson(file.document));
  const std::string& uri = file.spec.dataset.uri;
  if (!uri.empty()) file.data_folder = fs::path(uri.substr(sizeof("file://") - 1)).parent_path();
  return file;
}

}  // namespace

Result<SpecFile> LoadSpecFile(const std::string& path) {
  Result<SpecFile> file = Load(path);
  // ReadFile's own errors name the file already.
  if (file.ok() || file.status().message().find(path) != std::string::npos) return file;
  return file.status().WithContext(path);
}

}  // namespace lepton::cli
