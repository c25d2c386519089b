#include "cli/spec_file.h"

#include "runtime/base/file.h"

namespace lepton::cli {
namespace fs = std::filesystem;
using nlohmann::json;

namespace {

// Paths in a spec are relative to its folder.
void MakeUriAbsolute(const fs::path& spec_path, json& document, const char* field) {
  if (!document.is_object() || !document.contains("dataset")) return;
  json& dataset = document["dataset"];
  if (!dataset.is_object() || !dataset.contains(field) || !dataset[field].is_string()) return;
  const std::string uri = dataset[field].get<std::string>();
  if (uri.empty() || uri == "bytes" || uri.find("://") != std::string::npos) return;
  const fs::path path = fs::absolute(spec_path).parent_path() / uri;
  dataset[field] = "file://" + path.lexically_normal().string();
}

void AddFolder(const std::string& uri, std::vector<fs::path>* folders) {
  constexpr std::string_view kScheme = "file://";
  if (uri.rfind(kScheme, 0) != 0) return;
  fs::path path = uri.substr(kScheme.size());
  if (!path.has_filename()) path = path.parent_path();  // "pets/"
  folders->push_back(path.parent_path());
}

// model.onnx and model.hf, relative to the spec's own folder like the data.
void MakeModelAbsolute(const fs::path& spec_path, json& document, const char* field) {
  if (!document.is_object() || !document.contains("model")) return;
  json& model = document["model"];
  if (!model.is_object() || !model.contains(field) || !model[field].is_string()) return;
  const std::string file = model[field].get<std::string>();
  if (file.empty() || file.find("://") != std::string::npos) return;
  model[field] = (fs::absolute(spec_path).parent_path() / file).lexically_normal().string();
}

Result<SpecFile> Load(const std::string& path) {
  LEPTON_ASSIGN_OR_RETURN(const std::string text,
                          ReadFile(path == "-" ? "/dev/stdin" : path, 1 << 20));
  SpecFile file;
  LEPTON_ASSIGN_OR_RETURN(file.document, spec::DocumentToJson(text));
  MakeUriAbsolute(path, file.document, "uri");
  MakeUriAbsolute(path, file.document, "tokenizer");
  MakeModelAbsolute(path, file.document, "onnx");
  MakeModelAbsolute(path, file.document, "hf");
  LEPTON_ASSIGN_OR_RETURN(file.spec, spec::JobSpecFromJson(file.document));
  AddFolder(file.spec.dataset.uri, &file.data_folders);
  AddFolder(file.spec.dataset.tokenizer, &file.data_folders);
  if (!file.spec.model.hf.empty()) AddFolder("file://" + file.spec.model.hf, &file.data_folders);
  if (!file.spec.model.onnx.empty()) {
    file.data_folders.push_back(fs::path(file.spec.model.onnx).parent_path());
  }
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
