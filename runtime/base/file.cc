#include "runtime/base/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>

#include "runtime/base/hash.h"

namespace lepton {
namespace fs = std::filesystem;

void UniqueFd::Reset(int fd) {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

Result<std::string> ReadFile(const fs::path& path, size_t limit_bytes) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return ErrnoStatus(errno, path.string());
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return ErrnoStatus(errno, path.string());
  if (S_ISDIR(info.st_mode)) return ErrnoStatus(EISDIR, path.string());
  std::string bytes;
  bytes.reserve(static_cast<size_t>(info.st_size));
  char buffer[1 << 16];
  for (;;) {
    const ssize_t n = ::read(fd.get(), buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, path.string());
    if (n == 0) return bytes;
    if (bytes.size() + static_cast<size_t>(n) > limit_bytes) {
      return ResourceExhausted(path.string() + ": larger than the limit of " +
                               std::to_string(limit_bytes) + " bytes");
    }
    bytes.append(buffer, static_cast<size_t>(n));
  }
}

Status WriteAll(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, "write");
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  return Status::Ok();
}

Status SyncFolder(const fs::path& folder) {
  UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || ::fsync(fd.get()) != 0) return ErrnoStatus(errno, folder.string());
  return Status::Ok();
}

Status WriteFileAtomic(const fs::path& path, std::string_view bytes, int mode) {
  return WriteFileAtomic(
      path, [bytes](int fd) { return WriteAll(fd, bytes); }, mode);
}

Status WriteFileAtomic(const fs::path& path, const std::function<Status(int fd)>& fill, int mode) {
  // At random: a process number comes again, and with it what one that was killed has left.
  const fs::path temporary = path.string() + ".tmp." + RandomHex(8);
  const auto fail = [&](Status status) {
    ::unlink(temporary.c_str());
    return status.WithContext(path.string());
  };
  UniqueFd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode));
  if (!fd.valid()) return ErrnoStatus(errno, temporary.string());
  if (Status status = fill(fd.get()); !status.ok()) return fail(status);
  if (::fsync(fd.get()) != 0) return fail(ErrnoStatus(errno, "fsync"));
  fd.Reset();
  if (::rename(temporary.c_str(), path.c_str()) != 0) return fail(ErrnoStatus(errno, "rename"));
  return SyncFolder(path.has_parent_path() ? path.parent_path() : fs::path("."));
}

Status MakeFolders(const fs::path& path, int mode) {
  std::error_code unknown;  // what stat cannot tell, mkdir will
  if (path.empty() || fs::is_directory(path, unknown)) return Status::Ok();
  LEPTON_RETURN_IF_ERROR(MakeFolders(path.parent_path(), mode));
  if (::mkdir(path.c_str(), static_cast<mode_t>(mode)) != 0 && errno != EEXIST) {
    return ErrnoStatus(errno, path.string());
  }
  return fs::is_directory(path, unknown) ? Status::Ok() : ErrnoStatus(ENOTDIR, path.string());
}

Result<FileLock> FileLock::Acquire(const fs::path& path) {
  UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  if (!fd.valid()) return ErrnoStatus(errno, path.string());
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return ErrnoStatus(errno, path.string() + ": cannot be locked");
    char holder[32] = {};
    const ssize_t n = ::pread(fd.get(), holder, sizeof(holder) - 1, 0);
    return FailedPrecondition(path.string() + ": held by process " +
                              (n > 0 ? std::string(holder) : std::string("unknown")));
  }
  const std::string pid = std::to_string(::getpid());
  if (::ftruncate(fd.get(), 0) != 0 ||
      ::pwrite(fd.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
    return ErrnoStatus(errno, path.string());
  }
  return FileLock(std::move(fd));
}

TempFolder::TempFolder(std::string_view prefix) {
  const char* root = std::getenv("TMPDIR");
  std::string pattern =
      std::string(root && *root ? root : "/tmp") + "/" + std::string(prefix) + ".XXXXXX";
  const char* made = ::mkdtemp(pattern.data());
  if (made != nullptr) {
    path_ = made;
  } else {
    status_ = ErrnoStatus(errno, (root && *root ? "TMPDIR: " : "") + pattern);
  }
}

TempFolder::~TempFolder() {
  std::error_code ignored;
  if (!path_.empty()) fs::remove_all(path_, ignored);
}

}  // namespace lepton
