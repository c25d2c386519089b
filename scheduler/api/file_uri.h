// Files that a job spec names: read by the coordinator on the caller's behalf, so confined to the
// configured roots. Threads: any. Blocks on disk: call from a pool thread.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/file.h"
#include "runtime/base/status.h"

namespace lepton::api {

// The path in file:///a/b%20c or file://localhost/a. kInvalidArgument for anything else. `field`
// starts every message: "dataset.uri".
Result<std::filesystem::path> PathOfFileUri(std::string_view field, std::string_view uri);

// Folders that callers may have read.
struct FileRoots {
  std::vector<std::filesystem::path> folders;
  // Not this one, which has the pool's keys; but roots that were put into it. Empty: none.
  std::filesystem::path but_not = {};
};

struct ConfinedFile {
  UniqueFd fd;
  std::string path;  // as the URI has it
  bool folder = false;
};
// The regular file or folder that `uri` leads to after all symlinks, open. kPermissionDenied when
// that is outside of every root, whether or not it exists, so that the answer tells nothing about
// files elsewhere; kNotFound inside a root.
Result<ConfinedFile> OpenConfined(std::string_view field, std::string_view uri,
                                  const FileRoots& roots);

// The bytes of such a file; kResourceExhausted above `limit_bytes`.
Result<std::string> ReadConfinedFile(std::string_view field, std::string_view uri,
                                     const FileRoots& roots, size_t limit_bytes);

}  // namespace lepton::api
