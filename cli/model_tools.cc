#include "cli/model_tools.h"

#include "runtime/base/file.h"
#include "worker/models/huggingface_models.h"
#include "worker/models/onnx_models.h"

namespace lepton::cli {

api::ModelTools MakeModelTools() {
  api::ModelTools tools;
  tools.import_onnx = [](storage::ObjectStore& objects, std::string_view bytes,
                         const std::filesystem::path& folder,
                         const api::ModelNames& names) -> Result<api::ImportedModel> {
    LEPTON_ASSIGN_OR_RETURN(
        worker::StoredOnnx stored,
        worker::ImportOnnx(objects, bytes, folder,
                           {names.features, names.classes, names.label, names.loss, names.weak}));
    return api::ImportedModel{std::move(stored.manifest), std::move(stored.objects)};
  };
  const auto imported = [](Result<worker::StoredFolder> stored) -> Result<api::ImportedModel> {
    if (!stored.ok()) return stored.status();
    return api::ImportedModel{std::move(stored->manifest), std::move(stored->objects)};
  };
  tools.import_folder = [imported](storage::ObjectStore& objects,
                                   const api::ModelTools::OpenFile& open) {
    return imported(worker::ImportOpened(objects, open));
  };
  tools.is_archive = worker::IsFolderArchive;
  tools.import_archive = [imported](storage::ObjectStore& objects, UniqueFd archive) {
    return imported(worker::ImportArchive(objects, std::move(archive)));
  };
  tools.export_onnx = [](const storage::ObjectStore& objects,
                         const storage::Digest& manifest) -> Result<api::ModelFiles> {
    LEPTON_ASSIGN_OR_RETURN(onnx::ExportedModel exported, worker::ExportOnnx(objects, manifest));
    return api::ModelFiles{std::move(exported.model), std::move(exported.data)};
  };
  return tools;
}

namespace {

// The manifest's digest, once it and all that it names are in `objects`.
Result<storage::Digest> Fetch(ApiClient& client, const std::string& base,
                              storage::ObjectStore& objects) {
  const auto get = [&](const std::string& name) {
    return client.Raw("GET", base + "/files/" + UrlEncode(name), "");
  };
  LEPTON_ASSIGN_OR_RETURN(const http::Response manifest, get("manifest.json"));
  LEPTON_ASSIGN_OR_RETURN(const auto content, storage::ModelManifestFromJson(manifest.body));
  std::vector<std::string> names = {"weights.safetensors"};
  for (const auto& [name, digest] : content.files) names.push_back(name);
  // The data's tokenizer, where it is no file of the model.
  const bool listed = content.files.contains("tokenizer.json");
  if (storage::IsDigest(content.input.tokenizer) && !listed) names.push_back("tokenizer.json");
  for (const std::string& name : names) {
    LEPTON_ASSIGN_OR_RETURN(const http::Response part, get(name));
    LEPTON_RETURN_IF_ERROR(objects.Put(part.body).status());
  }
  return objects.Put(manifest.body);
}

}  // namespace

Status ExportModel(ApiClient& client, const std::string& base, const std::filesystem::path& file) {
  const TempFolder scratch;
  LEPTON_ASSIGN_OR_RETURN(const auto objects, storage::ObjectStore::Open(scratch.path()));
  LEPTON_ASSIGN_OR_RETURN(const storage::Digest digest, Fetch(client, base, *objects));
  const std::string data_file = file.filename().string() + ".data";
  LEPTON_ASSIGN_OR_RETURN(const onnx::ExportedModel exported,
                          worker::ExportOnnx(*objects, digest, int64_t{1} << 30, data_file));
  if (!exported.data.empty()) {
    LEPTON_RETURN_IF_ERROR(WriteFileAtomic(file.parent_path() / data_file, exported.data));
  }
  return WriteFileAtomic(file, exported.model);
}

Status ExportModelFolder(ApiClient& client, const std::string& base,
                         const std::filesystem::path& folder) {
  const TempFolder scratch;
  LEPTON_ASSIGN_OR_RETURN(const auto objects, storage::ObjectStore::Open(scratch.path()));
  LEPTON_ASSIGN_OR_RETURN(const storage::Digest digest, Fetch(client, base, *objects));
  return worker::ExportFolder(*objects, digest, folder);
}

bool HasFolderForm(const std::string& arch) {
  return worker::HasFolderForm(arch);
}

Result<std::string> PackModelFolder(const std::filesystem::path& folder, uint64_t limit_bytes) {
  auto packed = worker::PackFolder(folder, limit_bytes);
  if (packed.status().code() != StatusCode::kResourceExhausted) return packed;
  return ResourceExhausted(packed.status().message() +
                           ": where the coordinator can read the folder, name it with --by-path "
                           "instead of uploading it");
}

}  // namespace lepton::cli
