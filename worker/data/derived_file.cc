#include "worker/data/derived_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <thread>
#include <vector>

#include "runtime/base/clock.h"
#include "runtime/base/hash.h"

namespace lepton::worker {
namespace fs = std::filesystem;
namespace {

constexpr Duration kPoll = std::chrono::milliseconds(20);

// Marks a file as used now: what was not used for longest goes first.
void Touch(const fs::path& path) {
  (void)::utimensat(AT_FDCWD, path.c_str(), nullptr, 0);
}

}  // namespace

DerivedFiles::DerivedFiles(const storage::ObjectStore& objects,
                           std::function<bool()> stop_requested, uint64_t budget_bytes)
    : folder_(objects.root() / "derived"),
      stop_requested_(std::move(stop_requested)),
      budget_bytes_(budget_bytes) {}

Result<std::shared_ptr<const MappedFile>> DerivedFiles::Open(const std::string& recipe,
                                                             const Make& make) {
  LEPTON_RETURN_IF_ERROR(MakeFolders(folder_));
  const std::string key = Sha256Hex(recipe);
  const fs::path path = folder_ / key;
  const fs::path lock_path = folder_ / (key + ".lock");
  for (;;) {
    Result<MappedFile> file = MappedFile::Open(path);
    if (file.ok()) {
      Touch(path);
      return std::make_shared<const MappedFile>(*std::move(file));
    }
    if (file.status().code() != StatusCode::kNotFound) return file.status();
    Result<FileLock> lock = FileLock::Acquire(lock_path);
    if (lock.ok()) {
      // Another process may have made it between the look and the lock.
      if (!fs::exists(path)) LEPTON_RETURN_IF_ERROR(MakeFile(path, make));
      Prune(path);
      continue;
    }
    // The lock ends with its holder's process, so this does too.
    if (lock.status().code() != StatusCode::kFailedPrecondition) return lock.status();
    if (stop_requested_()) return Cancelled("stopped while another task prepares the data");
    std::this_thread::sleep_for(kPoll);
  }
}

Status DerivedFiles::MakeFile(const fs::path& path, const Make& make) {
  const fs::path temporary = path.string() + ".part";
  UniqueFd fd(::open(temporary.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
  if (!fd.valid()) return ErrnoStatus(errno, temporary.string());
  Status made = make(fd.get());
  if (made.ok() && ::fsync(fd.get()) != 0) made = ErrnoStatus(errno, temporary.string());
  if (made.ok() && ::rename(temporary.c_str(), path.c_str()) != 0) {
    made = ErrnoStatus(errno, path.string());
  }
  if (!made.ok()) {
    ::unlink(temporary.c_str());
    return made;
  }
  return SyncFolder(folder_);
}

void DerivedFiles::Prune(const fs::path& keep) {
  struct Found {
    fs::path path;
    uint64_t bytes;
    timespec used;
  };
  std::vector<Found> files;
  uint64_t total = 0;
  std::error_code error;
  for (fs::directory_iterator it(folder_, error), end; !error && it != end; it.increment(error)) {
    struct stat info {};
    if (it->path().has_extension() || ::stat(it->path().c_str(), &info) != 0) continue;
    total += static_cast<uint64_t>(info.st_size);
    if (it->path() != keep) {
      files.push_back({it->path(), static_cast<uint64_t>(info.st_size), info.st_mtim});
    }
  }
  std::sort(files.begin(), files.end(), [](const Found& a, const Found& b) {
    return std::pair(a.used.tv_sec, a.used.tv_nsec) < std::pair(b.used.tv_sec, b.used.tv_nsec);
  });
  for (const Found& file : files) {
    if (total <= budget_bytes_) return;
    if (::unlink(file.path.c_str()) == 0) total -= file.bytes;
  }
}

}  // namespace lepton::worker
