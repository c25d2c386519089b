#include "worker/scratch_folder.h"

#include <glog/logging.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <ctime>
#include <string>
#include <vector>

namespace lepton::worker {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLock = "LOCK";
constexpr const char* kHost = "HOST";  // whose: locks of other hosts may not be seen here
constexpr time_t kYoungSeconds = 60;

std::string HostName() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "";
}

bool IsOldAndOurs(const fs::path& folder) {
  struct stat about, lock;
  const Result<std::string> host = ReadFile(folder / kHost);
  return host.ok() && *host == HostName() && ::lstat(folder.c_str(), &about) == 0 &&
         S_ISDIR(about.st_mode) && about.st_uid == ::geteuid() &&
         ::lstat((folder / kLock).c_str(), &lock) == 0 && S_ISREG(lock.st_mode) &&
         lock.st_mtime + kYoungSeconds < std::time(nullptr);
}

}  // namespace

Result<std::unique_ptr<ScratchFolder>> ScratchFolder::Make() {
  std::unique_ptr<ScratchFolder> scratch(new ScratchFolder());
  LEPTON_RETURN_IF_ERROR(scratch->folder_.status());
  const fs::path folder = scratch->path();
  LEPTON_RETURN_IF_ERROR(WriteFileAtomic(folder / kHost, HostName()));
  Result<FileLock> lock = FileLock::Acquire(folder / kLock);
  if (lock.ok()) {
    scratch->lock_ = *std::move(lock);
  } else {  // a file system without locks: nobody deletes what is left there
    LOG(WARNING) << lock.status().message();
    std::error_code ignored;
    fs::remove(folder / kLock, ignored);
  }
  RemoveAbandoned(folder.parent_path());
  return scratch;
}

size_t RemoveAbandoned(const fs::path& root) {
  std::vector<fs::path> folders;
  std::error_code error;
  for (fs::directory_iterator it(root, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with("lepton-worker.") && IsOldAndOurs(it->path())) {
      folders.push_back(it->path());
    }
  }
  size_t removed = 0;
  for (const fs::path& folder : folders) {
    const auto lock = FileLock::Acquire(folder / kLock);
    if (!lock.ok()) continue;  // its worker lives
    fs::remove_all(folder, error);
    LOG_IF(WARNING, error) << "cannot delete " << folder << ": " << error.message();
    removed += error ? 0 : 1;
  }
  return removed;
}

}  // namespace lepton::worker
