#include "cli/spec_file.h"

#include <optional>

#include "runtime/base/file.h"
#include "runtime/http/http.h"

namespace lepton::cli {
namespace fs = std::filesystem;
using nlohmann::json;

namespace {

// What names files in a spec. All are relative to its folder.
enum class Names {
  kFile,        // a path or a URI
  kTokenizer,   // the same, or the word "bytes"
  kModel,       // a registered model, or a folder: that has a slash
  kLocalModel,  // a path, and stays one
};
struct PathField {
  const char* object;  // "" for the spec itself
  const char* field;
  Names names;
};
constexpr PathField kPathFields[] = {
    {"dataset", "uri", Names::kFile},      {"dataset", "tokenizer", Names::kTokenizer},
    {"model", "from", Names::kModel},      {"", "model", Names::kModel},  // short for model.from
    {"", "teacher", Names::kModel},        {"model", "hf", Names::kLocalModel},
    {"model", "onnx", Names::kLocalModel},
};

bool IsPath(Names names, const std::string& text) {
  if (text.empty() || text.find("://") != std::string::npos) return false;
  if (names == Names::kTokenizer) return text != "bytes";
  return names != Names::kModel || text.find('/') != std::string::npos;
}

// The file or folder that `text`, absolute by now, names.
std::optional<fs::path> PathOf(const std::string& text) {
  constexpr std::string_view kScheme = "file://";
  fs::path path = text;
  if (text.starts_with(kScheme)) {
    path = http::PercentDecode(std::string_view(text).substr(kScheme.size())).value_or("");
  }
  if (!path.is_absolute()) return std::nullopt;
  return path.has_filename() ? path : path.parent_path();  // "pets/"
}

void MakePathsAbsolute(const fs::path& spec_path, SpecFile& file) {
  if (!file.document.is_object()) return;
  for (const PathField& path_field : kPathFields) {
    json* object = &file.document;
    if (*path_field.object != '\0') {
      if (!object->contains(path_field.object)) continue;
      object = &(*object)[path_field.object];
    }
    if (!object->is_object() || !object->contains(path_field.field)) continue;
    json& value = (*object)[path_field.field];
    if (!value.is_string()) continue;
    const std::string text = value.get<std::string>();
    if (IsPath(path_field.names, text)) {
      const fs::path path = (fs::absolute(spec_path).parent_path() / text).lexically_normal();
      value = path_field.names == Names::kLocalModel ? path.string() : http::FileUri(path);
    }
    if (const auto input = PathOf(value.get<std::string>())) {
      file.inputs.push_back(*input);
      file.data_folders.push_back(input->parent_path());  // a run's coordinator may read there
    }
  }
}

Result<SpecFile> Load(const std::string& path) {
  LEPTON_ASSIGN_OR_RETURN(const std::string text,
                          ReadFile(path == "-" ? "/dev/stdin" : path, 1 << 20));
  SpecFile file;
  LEPTON_ASSIGN_OR_RETURN(file.document, spec::DocumentToJson(text));
  MakePathsAbsolute(path, file);
  LEPTON_ASSIGN_OR_RETURN(file.spec, spec::JobSpecFromJson(file.document));
  LEPTON_RETURN_IF_ERROR(spec::CheckSubmission(file.spec));
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
