// Stored models from Hugging Face folders, and stored models as such folders; and the doors through
// which folders of either kind come.
// Threads: pure functions of the store's content. They block on the disk.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/formats/huggingface/folder.h"
#include "storage/models/model_manifest.h"
#include "storage/objects/object_store.h"

namespace lepton::worker {

struct StoredFolder {
  storage::Digest manifest;
  std::vector<storage::Digest> objects;  // all of them, the manifest included
  storage::ModelManifest content;
};
// Stores the folder's weights by our names of parameters, in the types that they have, its config
// and its tokenizer, and a manifest that names them. Weights go from disk to disk in pieces: memory
// does not grow with the model. Before anything is stored, the architecture is built and compared
// with the tensors. kInvalidArgument names the file, the option or the tensor that is wrong.
Result<StoredFolder> ImportFolder(storage::ObjectStore& objects, const huggingface::OpenFile& open);

// The same, or a stored model's folder (stored_folder.h), where each file is opened by its plain
// name, for reading.
Result<StoredFolder> ImportOpened(
    storage::ObjectStore& objects,
    const std::function<Result<UniqueFd>(const std::string& name)>& open);
// The same of a folder's archive (formats/huggingface/folder_archive.h).
Result<StoredFolder> ImportArchive(storage::ObjectStore& objects, UniqueFd archive);
bool IsFolderArchive(std::string_view start);
// Such an archive of a folder, which is looked at before. kResourceExhausted above `limit_bytes`.
Result<std::string> PackFolder(const std::filesystem::path& folder, uint64_t limit_bytes);

// Writes config.json, weights, and what there is of a tokenizer and a preprocessor into `folder`,
// which is made if it is not there; files of these names are replaced. The family's public code
// loads it, and so does ImportFolder. kFailedPrecondition: a model that no family has (mlp, onnx).
Status ExportFolder(const storage::ObjectStore& objects, const storage::Digest& manifest,
                    const std::filesystem::path& folder);

// Whether ExportFolder can write such a model.
bool HasFolderForm(const std::string& arch);

}  // namespace lepton::worker
