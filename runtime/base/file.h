// Files and file descriptors with Status errors and crash-safe writes.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/base/status.h"

namespace lepton {

// Owns a file descriptor; closes it on destruction.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.Release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) Reset(other.Release());
    return *this;
  }
  ~UniqueFd() { Reset(); }
  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int Release() { return std::exchange(fd_, -1); }
  void Reset(int fd = -1);

 private:
  int fd_ = -1;
};

// The whole file; kResourceExhausted when larger than `limit_bytes`.
Result<std::string> ReadFile(const std::filesystem::path& path,
                             size_t limit_bytes = size_t{1} << 32);
// Replaces the file so that a crash leaves the old or the new bytes, never a mix: temporary file in
// the same folder, fsync, rename, fsync of the folder. `mode` as for open(2).
Status WriteFileAtomic(const std::filesystem::path& path, std::string_view bytes, int mode = 0644);
// The same for what `fill` writes to the descriptor, which may be larger than memory.
Status WriteFileAtomic(const std::filesystem::path& path, const std::function<Status(int fd)>& fill,
                       int mode = 0644);
// Makes renames and creations in `folder` durable.
Status SyncFolder(const std::filesystem::path& folder);
Status MakeFolders(const std::filesystem::path& path, int mode = 0755);
// Writes all of `bytes`, retrying short writes and EINTR.
Status WriteAll(int fd, std::string_view bytes);

// An advisory exclusive lock on a file, held until destruction or process death.
class FileLock {
 public:
  // kFailedPrecondition, naming the holder's pid, when another process holds it.
  static Result<FileLock> Acquire(const std::filesystem::path& path);

 private:
  explicit FileLock(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

// A fresh private folder under $TMPDIR or /tmp, removed with its contents on destruction.
class TempFolder {
 public:
  explicit TempFolder(std::string_view prefix = "lepton");
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  ~TempFolder();
  // Why there is none, and path() is empty.
  const Status& status() const { return status_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  Status status_;
  std::filesystem::path path_;
};

}  // namespace lepton
