#include "cli/model_tools.h"

#include <nlohmann/json.hpp>

#include "runtime/base/file.h"
#include "worker/models/onnx_models.h"

namespace lepton::cli {

using nlohmann::json;

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
  tools.export_onnx = [](const storage::ObjectStore& objects,
                         const storage::Digest& manifest) -> Result<api::ModelFiles> {
    LEPTON_ASSIGN_OR_RETURN(onnx::ExportedModel exported, worker::ExportOnnx(objects, manifest));
    return api::ModelFiles{std::move(exported.model), std::move(exported.data)};
  };
  return tools;
}

Status ExportModel(ApiClient& client, const std::string& base, const std::filesystem::path& file) {
  const auto get = [&](const std::string& name) {
    return client.Raw("GET", base + "/files/" + UrlEncode(name), "");
  };
  LEPTON_ASSIGN_OR_RETURN(const http::Response manifest, get("manifest.json"));
  LEPTON_ASSIGN_OR_RETURN(const http::Response weights, get("weights.safetensors"));
  const TempFolder scratch;
  LEPTON_ASSIGN_OR_RETURN(const auto objects, storage::ObjectStore::Open(scratch.path()));
  LEPTON_RETURN_IF_ERROR(objects->Put(weights.body).status());
  LEPTON_ASSIGN_OR_RETURN(const storage::Digest digest, objects->Put(manifest.body));
  const json parsed = json::parse(manifest.body, nullptr, /*allow_exceptions=*/false);
  if (parsed.is_object() && parsed.contains("files")) {
    for (const auto& [name, unused] : parsed["files"].items()) {
      LEPTON_ASSIGN_OR_RETURN(const http::Response part, get(name));
      LEPTON_RETURN_IF_ERROR(objects->Put(part.body).status());
    }
  }
  const std::string data_file = file.filename().string() + ".data";
  LEPTON_ASSIGN_OR_RETURN(const onnx::ExportedModel exported,
                          worker::ExportOnnx(*objects, digest, int64_t{1} << 30, data_file));
  if (!exported.data.empty()) {
    LEPTON_RETURN_IF_ERROR(WriteFileAtomic(file.parent_path() / data_file, exported.data));
  }
  return WriteFileAtomic(file, exported.model);
}

}  // namespace lepton::cli
