// A stored model in a folder, as `lepton run` and `lepton model pull` leave it: manifest.json and
// the files that it names. Into a store and, to upload it, into an archive.
// Threads: pure functions; they block on the disk.
#pragma once

#include "worker/models/huggingface_models.h"

namespace lepton::worker {

// Whether there is a manifest.json: then it is such a folder, even with a config.json beside it.
bool IsStoredFolder(const huggingface::OpenFile& open);

// Stores all files, then the manifest; the weights are compared with the architecture. kDataLoss
// when a file is not the one that the manifest names, kInvalidArgument when the manifest or the
// weights are wrong. Errors name the file.
Result<StoredFolder> ImportStoredFolder(storage::ObjectStore& objects,
                                        const huggingface::OpenFile& open);

// The names of the folder's files, the manifest among them; kInvalidArgument as above.
Result<std::vector<std::string>> FilesOfStoredFolder(const huggingface::OpenFile& open);

}  // namespace lepton::worker
