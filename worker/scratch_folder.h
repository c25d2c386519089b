// The temporary folder of a worker that was given no other: lepton-worker.XXXXXX under $TMPDIR or
// /tmp, with a lock in it while the worker lives, so that the next one can delete what one that was
// killed left there. Threads: any.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>

#include "runtime/base/file.h"
#include "runtime/base/status.h"

namespace lepton::worker {

class ScratchFolder {
 public:
  // Those of this user whose worker is gone are deleted before. kPermissionDenied,
  // kResourceExhausted: as of the folder.
  static Result<std::unique_ptr<ScratchFolder>> Make();
  const std::filesystem::path& path() const { return folder_.path(); }

 private:
  ScratchFolder() : folder_("lepton-worker") {}
  TempFolder folder_;
  std::optional<FileLock> lock_;
};

// Deletes the folders in `root` that a worker of this user and host left whose lock nobody has any
// more, and that are older than a minute: a new one may not have its lock yet. Returns how many.
size_t RemoveAbandoned(const std::filesystem::path& root);

}  // namespace lepton::worker
