#include "cli/model_tools.h"

#include "runtime/base/file.h"
#include "worker/models/huggingface_models.h"
#include "worker/models/onnx_models.h"
#include "worker/train/model_check.h"

namespace lepton::cli {
api::ModelTools MakeModelTools() {
  api::ModelTools tools;
  tools.check_model = [](const spec::ModelSpec& model, const api::ModelData& data) {
    return worker::CheckModel(model,
                              {data.kind, data.features, data.channels, data.height, data.width});
  };
  tools.import_onnx = [](storage::ObjectStore& objects, std::string_view bytes,
                         const std::filesystem::path& folder, const std::filesystem::path& but_not,
                         const api::ModelNames& names) -> Result<api::ImportedModel> {
    LEPTON_ASSIGN_OR_RETURN(worker::StoredOnnx stored,
                            worker::ImportOnnx(objects, bytes, {folder, but_not},
                                               {names.features, names.classes, names.label,
                                                names.loss, names.weak, names.trains}));
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

using Take = std::function<Status(std::string_view)>;
// Gives a file's bytes, piece by piece.
using Download = std::function<Status(const Take&)>;

// Each file of the model under `base`, the manifest last, so that a folder with one is whole.
Status ForEachFile(ApiClient& client, const std::string& base,
                   const std::function<Status(const std::string& name, const Download&)>& take) {
  const auto target = [&](const std::string& name) { return base + "/files/" + UrlEncode(name); };
  LEPTON_ASSIGN_OR_RETURN(const http::Response manifest,
                          client.Raw("GET", target(storage::kManifestFile), ""));
  LEPTON_ASSIGN_OR_RETURN(const auto content, storage::ModelManifestFromJson(manifest.body));
  for (const auto& [name, digest] : content.FolderFiles()) {
    LEPTON_RETURN_IF_ERROR(take(name, [&, file = name](const Take& pieces) {
      return client.Download(target(file), pieces);
    }));
  }
  return take(storage::kManifestFile, [&](const Take& pieces) { return pieces(manifest.body); });
}

// The manifest's digest, once it and all that it names are in `objects`.
Result<storage::Digest> Fetch(ApiClient& client, const std::string& base,
                              storage::ObjectStore& objects) {
  storage::Digest last;
  LEPTON_RETURN_IF_ERROR(
      ForEachFile(client, base, [&](const std::string&, const Download& download) -> Status {
        LEPTON_ASSIGN_OR_RETURN(const auto object, objects.NewObject());
        LEPTON_RETURN_IF_ERROR(
            download([&](std::string_view bytes) { return object->Append(bytes); }));
        LEPTON_ASSIGN_OR_RETURN(last, object->Finish());
        return Status::Ok();
      }));
  return last;
}

}  // namespace

Status SaveModel(ApiClient& client, const std::string& base, const std::filesystem::path& folder,
                 const std::function<void(const std::filesystem::path&, size_t)>& saved) {
  const auto target = std::filesystem::absolute(folder);
  LEPTON_RETURN_IF_ERROR(MakeFolders(target));
  return ForEachFile(client, base, [&](const std::string& name, const Download& download) {
    size_t size = 0;
    LEPTON_RETURN_IF_ERROR(WriteFileAtomic(target / name, [&](int fd) {
      return download([&](std::string_view bytes) {
        size += bytes.size();
        return WriteAll(fd, bytes);
      });
    }));
    if (saved) saved(target / name, size);
    return Status::Ok();
  });
}

Status ExportModel(ApiClient& client, const std::string& base, const std::filesystem::path& file) {
  const TempFolder scratch;
  LEPTON_RETURN_IF_ERROR(scratch.status());
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
  LEPTON_RETURN_IF_ERROR(scratch.status());
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
