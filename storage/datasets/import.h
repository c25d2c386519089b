// Files of every format into objects and a manifest. A bad file leaves at most unreferenced objects
// behind, no manifest. Memory is bounded: tables are parsed in memory (limits.table_bytes), all
// else runs through in pieces.
// Threads: any, one import a call.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/file.h"
#include "storage/datasets/byte_source.h"
#include "storage/datasets/dataset_manifest.h"

namespace lepton::storage {

// "auto", "csv", "jsonl", "text", "tokens", "images"
const std::vector<std::string>& DatasetFormats();

// How far an import is: bytes, or files of a folder.
struct ImportProgress {
  std::string_view phase;  // "reading text", "reading pictures"
  uint64_t done = 0, total = 0;
};

struct ImportLimits {
  uint64_t table_bytes = uint64_t{1} << 30;     // csv, jsonl
  uint64_t stream_bytes = uint64_t{1} << 40;    // text, tokens, all pictures together
  uint64_t picture_bytes = uint64_t{64} << 20;  // one file
};

struct ImportOptions {
  std::string name;  // the dataset's
  std::string path;  // where it came from; its suffix may decide the format
  std::string format = "auto";
  std::string token_type = "auto";  // of raw ids: u16, u32; auto: u16
  ImportLimits limits;
  // Often, on this thread. False: the import is to end, with kCancelled.
  std::function<bool(const ImportProgress&)> progress = {};
};

// The manifest and its own digest.
struct ImportedDataset {
  DatasetManifest manifest;
  Digest digest;
};

// One file. kInvalidArgument names the line, the position or the file within an archive.
Result<ImportedDataset> ImportFile(ObjectStore& objects, ByteSource source,
                                   const ImportOptions& options);
// A folder of pictures, one subfolder a class. Nothing is followed out of it: symbolic links are
// refused by name.
Result<ImportedDataset> ImportFolder(ObjectStore& objects, UniqueFd folder,
                                     const ImportOptions& options);
// A CSV that is in memory.
Result<ImportedDataset> ImportCsv(ObjectStore& objects, std::string_view name,
                                  std::string_view bytes);

}  // namespace lepton::storage
