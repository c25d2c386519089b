// One importer a format, and how to tell formats apart. Private to storage/datasets; import.cc has
// the list.
// Threads: pure functions over their arguments.
#pragma once

#include "storage/datasets/import.h"

namespace lepton::storage {

// By the suffix of `path`, else by the first bytes. kInvalidArgument when nothing fits: name it.
Result<std::string> GuessFormat(std::string_view path, std::string_view start);

// Each stores its data objects and fills the manifest, but for its name and format.
Result<DatasetManifest> ImportCsvFile(ObjectStore&, ByteSource&, const ImportOptions&);
Result<DatasetManifest> ImportJsonlFile(ObjectStore&, ByteSource&, const ImportOptions&);
Result<DatasetManifest> ImportTextFile(ObjectStore&, ByteSource&, const ImportOptions&);
Result<DatasetManifest> ImportTokensFile(ObjectStore&, ByteSource&, const ImportOptions&);
Result<DatasetManifest> ImportImageArchive(ObjectStore&, ByteSource&, const ImportOptions&);
Result<DatasetManifest> ImportImageFolder(ObjectStore&, UniqueFd folder, const ImportOptions&);

// Tells options.progress, if it is there. kCancelled when that says so.
Status ReportProgress(const ImportOptions& options, std::string_view phase, uint64_t done,
                      uint64_t total);

}  // namespace lepton::storage
