#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <vector>

#include "storage/datasets/file_walk.h"

namespace lepton::storage {
namespace {

constexpr int kMaxDepth = 32;
constexpr size_t kMaxFiles = 50'000'000;

struct Found {
  std::string path;
  uint64_t bytes = 0;
};

Result<std::vector<std::string>> Names(int folder) {
  // fdopendir takes the descriptor over, and the caller still needs its own.
  UniqueFd copy(::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!copy.valid()) return ErrnoStatus(errno, "open");
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(::fdopendir(copy.get()), ::closedir);
  if (stream == nullptr) return ErrnoStatus(errno, "read");
  (void)copy.Release();
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(stream.get())) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  if (errno != 0) return ErrnoStatus(errno, "read");
  std::sort(names.begin(), names.end());
  return names;
}

Status Collect(int folder, const std::string& prefix, int depth, std::vector<Found>* found) {
  if (depth > kMaxDepth) return InvalidArgument(prefix + ": folders are nested too deeply");
  const Result<std::vector<std::string>> names = Names(folder);
  if (!names.ok()) return names.status().WithContext(prefix.empty() ? "." : prefix);
  for (const std::string& name : *names) {
    const std::string path = prefix + name;
    struct stat info {};
    if (::fstatat(folder, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
      return ErrnoStatus(errno, path);
    }
    if (S_ISDIR(info.st_mode)) {
      const UniqueFd inner(
          ::openat(folder, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (!inner.valid()) return ErrnoStatus(errno, path);
      LEPTON_RETURN_IF_ERROR(Collect(inner.get(), path + "/", depth + 1, found));
    } else if (S_ISREG(info.st_mode)) {
      found->push_back({path, static_cast<uint64_t>(info.st_size)});
      if (found->size() > kMaxFiles) return ResourceExhausted("more than 50 million files");
    } else {
      return InvalidArgument(path + ": is a " +
                             (S_ISLNK(info.st_mode) ? "symbolic link" : "special file") +
                             ": copy the file itself there");
    }
  }
  return Status::Ok();
}

// Opens one part of the path after the other, so that no link is followed.
Result<UniqueFd> OpenBeneath(int folder, const std::string& path) {
  UniqueFd at;
  size_t begin = 0;
  for (;;) {
    const size_t slash = path.find('/', begin);
    const bool last = slash == path.npos;
    const std::string name = path.substr(begin, last ? path.npos : slash - begin);
    const int flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | (last ? O_NONBLOCK : O_DIRECTORY);
    UniqueFd next(::openat(at.valid() ? at.get() : folder, name.c_str(), flags));
    if (!next.valid()) return ErrnoStatus(errno, path);
    if (last) return next;
    at = std::move(next);
    begin = slash + 1;
  }
}

}  // namespace

Status WalkFolder(UniqueFd folder, FileVisitor& visitor) {
  std::vector<Found> files;
  LEPTON_RETURN_IF_ERROR(Collect(folder.get(), "", 0, &files));
  uint64_t done = 0;
  for (const Found& file : files) {
    LEPTON_RETURN_IF_ERROR(visitor.Progress(done++, files.size()));
    LEPTON_ASSIGN_OR_RETURN(const bool wanted, visitor.Wants(file.path, file.bytes));
    if (!wanted) continue;
    LEPTON_ASSIGN_OR_RETURN(UniqueFd fd, OpenBeneath(folder.get(), file.path));
    Result<ByteSource> source = ByteSource::FromFile(std::move(fd));
    if (!source.ok()) return source.status().WithContext(file.path);
    // A file that grew after it was measured is a different file.
    Result<std::string> bytes = source->ReadAll(file.bytes);
    if (!bytes.ok()) return bytes.status().WithContext(file.path);
    LEPTON_RETURN_IF_ERROR(visitor.Visit(file.path, *std::move(bytes)));
  }
  return Status::Ok();
}

}  // namespace lepton::storage
