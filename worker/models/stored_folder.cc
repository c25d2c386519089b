#include "worker/models/stored_folder.h"

#include "runtime/nn/forward_program.h"
#include "worker/train/model_files.h"

namespace lepton::worker {
namespace {

struct Manifest {
  std::string text;
  storage::ModelManifest content;
};
Result<Manifest> ReadManifest(const huggingface::OpenFile& open) {
  Manifest manifest;
  LEPTON_ASSIGN_OR_RETURN(
      manifest.text,
      huggingface::ReadSmallFile(open, storage::kManifestFile, huggingface::kMaxSmallFileBytes));
  auto content = storage::ModelManifestFromJson(manifest.text);
  if (!content.ok()) return content.status().WithContext(storage::kManifestFile);
  manifest.content = *std::move(content);
  return manifest;
}

// In pieces: weights may be larger than memory.
Status StoreFile(storage::ObjectStore& objects, const huggingface::OpenFile& open,
                 const std::string& name, const storage::Digest& digest) {
  LEPTON_ASSIGN_OR_RETURN(const huggingface::OpenedFile file, open(name));
  LEPTON_ASSIGN_OR_RETURN(const auto writer, objects.NewObject());
  LEPTON_RETURN_IF_ERROR(huggingface::ReadPieces(
      open, name, 0, file.size, [&](std::string_view piece) { return writer->Append(piece); }));
  const auto stored = writer->Finish(digest);
  if (stored.status().code() != StatusCode::kDataLoss) return stored.status();
  return DataLoss(name + ": is not the file that " + storage::kManifestFile + " names");
}

// Shapes and names of the weights against the architecture, before anybody counts on them.
Status CheckStoredWeights(const storage::ObjectStore& objects, const storage::Digest& manifest) {
  LEPTON_ASSIGN_OR_RETURN(const StoredModel model, LoadModel(objects, manifest));
  LEPTON_ASSIGN_OR_RETURN(const nn::Signature signature, model.signature());
  LEPTON_ASSIGN_OR_RETURN(const auto program,
                          nn::ForwardProgram::Build(signature, model.model, "f32"));
  std::vector<nn::ParameterView> parameters;
  for (const auto& parameter : program->parameters()) parameters.push_back(parameter.view);
  return nn::CheckWeights(model.tensors, parameters);
}

}  // namespace

bool IsStoredFolder(const huggingface::OpenFile& open) {
  return open(storage::kManifestFile).ok();
}

Result<StoredFolder> ImportStoredFolder(storage::ObjectStore& objects,
                                        const huggingface::OpenFile& open) {
  LEPTON_ASSIGN_OR_RETURN(Manifest manifest, ReadManifest(open));
  StoredFolder stored;
  for (const auto& [name, digest] : manifest.content.FolderFiles()) {
    LEPTON_RETURN_IF_ERROR(StoreFile(objects, open, name, digest));
    stored.objects.push_back(digest);
  }
  LEPTON_ASSIGN_OR_RETURN(stored.manifest, objects.Put(manifest.text));
  stored.objects.push_back(stored.manifest);
  if (const Status fits = CheckStoredWeights(objects, stored.manifest); !fits.ok()) {
    return fits.WithContext(storage::kManifestFile);
  }
  stored.content = std::move(manifest.content);
  return stored;
}

Result<std::vector<std::string>> FilesOfStoredFolder(const huggingface::OpenFile& open) {
  LEPTON_ASSIGN_OR_RETURN(const Manifest manifest, ReadManifest(open));
  std::vector<std::string> names = {storage::kManifestFile};
  for (const auto& [name, digest] : manifest.content.FolderFiles()) names.push_back(name);
  return names;
}

}  // namespace lepton::worker
