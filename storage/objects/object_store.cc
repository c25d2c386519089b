#include "storage/objects/object_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>

#include "runtime/base/file.h"
#include "runtime/base/hash.h"
#include "runtime/base/logging.h"
#include "runtime/base/progress.h"

namespace lepton::storage {
namespace fs = std::filesystem;
namespace {

constexpr time_t kStaleSeconds = 3600;
constexpr size_t kReadPiece = size_t{1} << 20;

Status CheckDigest(const Digest& digest) {
  if (IsDigest(digest)) return Status::Ok();
  return InvalidArgument("object \"" + digest.substr(0, 80) +
                         "\": a digest is 64 lower-case hex digits");
}

std::string Label(const Digest& digest) {
  return "object " + digest;
}

struct OpenObject {
  UniqueFd fd;
  uint64_t size = 0;
};

Result<OpenObject> OpenForRead(const fs::path& path, const Digest& digest) {
  OpenObject object;
  object.fd.Reset(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat info {};
  if (!object.fd.valid() || ::fstat(object.fd.get(), &info) != 0) {
    return ErrnoStatus(errno, Label(digest));
  }
  object.size = static_cast<uint64_t>(info.st_size);
  return object;
}

Result<std::string> ReadAt(const OpenObject& object, uint64_t offset, size_t max_bytes,
                           const Digest& digest) {
  if (offset >= object.size) return std::string();
  std::string bytes(std::min<uint64_t>(max_bytes, object.size - offset), '\0');
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n =
        ::pread(object.fd.get(), bytes.data() + done, std::min(kReadPiece, bytes.size() - done),
                static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, Label(digest));
    if (n == 0) break;  // cut short meanwhile
    done += static_cast<size_t>(n);
    progress::Moved();
  }
  bytes.resize(done);
  return bytes;
}

ObjectStore::Time ModifiedAt(const struct stat& info) {
  return ObjectStore::Time(std::chrono::duration_cast<ObjectStore::Time::duration>(
      std::chrono::seconds(info.st_mtim.tv_sec) + std::chrono::nanoseconds(info.st_mtim.tv_nsec)));
}

void RemoveStaleFiles(const fs::path& folder) {
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    struct stat info {};
    if (::stat(it->path().c_str(), &info) != 0 || !S_ISREG(info.st_mode) ||
        info.st_mtime + kStaleSeconds >= ::time(nullptr)) {
      continue;
    }
    // A transfer may stand still that long, while its coordinator is away.
    const UniqueFd fd(::open(it->path().c_str(), O_RDONLY | O_CLOEXEC));
    const bool written = ::flock(fd.get(), LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    if (!written) ::unlink(it->path().c_str());
  }
}

}  // namespace

bool IsDigest(std::string_view text) {
  return text.size() == 64 && std::all_of(text.begin(), text.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

Result<std::unique_ptr<ObjectStore>> ObjectStore::Open(const fs::path& root) {
  for (const char* name : {"objects", "tmp", "corrupt"}) {
    const fs::path folder = root / name;
    LEPTON_RETURN_IF_ERROR(MakeFolders(folder).WithContext("object store"));
    if (::access(folder.c_str(), W_OK | X_OK) != 0) {
      return ErrnoStatus(errno, "object store: " + folder.string());
    }
  }
  LEPTON_RETURN_IF_ERROR(SyncFolder(root));
  RemoveStaleFiles(root / "tmp");
  return std::unique_ptr<ObjectStore>(new ObjectStore(root));
}

fs::path ObjectStore::PathOf(const Digest& digest) const {
  if (!IsDigest(digest)) return root_ / "objects" / "no-such-object";
  return root_ / "objects" / digest.substr(0, 2) / digest;
}

Result<Digest> ObjectStore::Put(std::string_view bytes) {
  const Digest digest = Sha256Hex(bytes);
  struct stat info {};
  if (::stat(PathOf(digest).c_str(), &info) == 0 &&
      info.st_size == static_cast<off_t>(bytes.size()) && Touch(digest).ok()) {
    // Another writer may have renamed it a moment ago and not yet synced the folder.
    if (info.st_ctime + 60 > ::time(nullptr)) {
      LEPTON_RETURN_IF_ERROR(SyncFolder(PathOf(digest).parent_path()));
    }
    return digest;
  }
  LEPTON_ASSIGN_OR_RETURN(const auto writer, NewObject());
  LEPTON_RETURN_IF_ERROR(writer->Append(bytes));
  return writer->Finish(digest);
}

Result<std::string> ObjectStore::Get(const Digest& digest) const {
  LEPTON_RETURN_IF_ERROR(CheckDigest(digest));
  LEPTON_ASSIGN_OR_RETURN(const OpenObject object, OpenForRead(PathOf(digest), digest));
  LEPTON_ASSIGN_OR_RETURN(std::string bytes, ReadAt(object, 0, SIZE_MAX, digest));
  if (Sha256Hex(bytes) != digest) return Quarantine(digest);
  return bytes;
}

Result<MappedFile> ObjectStore::Map(const Digest& digest, bool verify) const {
  LEPTON_RETURN_IF_ERROR(CheckDigest(digest));
  Result<MappedFile> file = MappedFile::Open(PathOf(digest));
  if (!file.ok()) return file.status().WithContext(Label(digest));
  if (verify && Sha256Hex(file->bytes()) != digest) return Quarantine(digest);
  return file;
}

Status ObjectStore::Quarantine(const Digest& digest) const {
  found_corrupt_ = true;
  const fs::path to = root_ / "corrupt" / (digest + "." + RandomHex(4));
  if (::rename(PathOf(digest).c_str(), to.c_str()) != 0) {
    PLOG(ERROR) << Label(digest) << ": corrupt, and cannot be moved to " << to;
  } else {
    LOG(ERROR) << Label(digest) << ": corrupt, moved to " << to;
  }
  return DataLoss(Label(digest) + ": its bytes do not match its digest; moved to " +
                  (root_ / "corrupt").string());
}

struct ObjectStore::Reader::State {
  const ObjectStore& store;
  const Digest digest;
  const OpenObject object;
  uint64_t offset = 0;
  Sha256 hash;

  State(const ObjectStore& of, Digest name, OpenObject opened)
      : store(of), digest(std::move(name)), object(std::move(opened)) {}
};

ObjectStore::Reader::Reader(std::unique_ptr<State> state) : state_(std::move(state)) {}
ObjectStore::Reader::~Reader() = default;

// Unless a whole one was put in its place meanwhile.
Status ObjectStore::Reader::Damaged(const State& at) {
  struct stat read {
  }, there{};
  const bool same = ::fstat(at.object.fd.get(), &read) == 0 &&
                    ::stat(at.store.PathOf(at.digest).c_str(), &there) == 0 &&
                    read.st_ino == there.st_ino && read.st_dev == there.st_dev;
  if (same) return at.store.Quarantine(at.digest);
  return DataLoss(Label(at.digest) + ": its bytes did not match its digest; it was replaced since");
}

uint64_t ObjectStore::Reader::size() const {
  return state_->object.size;
}

Result<std::string> ObjectStore::Reader::Next(size_t max_bytes) {
  State& at = *state_;
  LEPTON_ASSIGN_OR_RETURN(std::string bytes, ReadAt(at.object, at.offset, max_bytes, at.digest));
  if (bytes.empty() && at.offset < at.object.size) return Damaged(at);
  // Asked for next, while these go on their way.
  ::posix_fadvise(at.object.fd.get(), static_cast<off_t>(at.offset + bytes.size()),
                  static_cast<off_t>(2 * max_bytes), POSIX_FADV_WILLNEED);
  at.hash.Update(bytes);
  const bool last = !bytes.empty() && at.offset + bytes.size() == at.object.size;
  at.offset += bytes.size();
  if (last && at.hash.FinalHex() != at.digest) return Damaged(at);
  return bytes;
}

Result<std::unique_ptr<ObjectStore::Reader>> ObjectStore::Read(const Digest& digest) const {
  LEPTON_RETURN_IF_ERROR(CheckDigest(digest));
  LEPTON_ASSIGN_OR_RETURN(OpenObject object, OpenForRead(PathOf(digest), digest));
  if (object.size == 0 && Sha256Hex("") != digest) return Quarantine(digest);
  return std::unique_ptr<Reader>(
      new Reader(std::make_unique<Reader::State>(*this, digest, std::move(object))));
}

Result<std::string> ObjectStore::GetRange(const Digest& digest, uint64_t offset,
                                          size_t max_bytes) const {
  LEPTON_RETURN_IF_ERROR(CheckDigest(digest));
  LEPTON_ASSIGN_OR_RETURN(const OpenObject object, OpenForRead(PathOf(digest), digest));
  return ReadAt(object, offset, max_bytes, digest);
}

Result<uint64_t> ObjectStore::Size(const Digest& digest) const {
  LEPTON_RETURN_IF_ERROR(CheckDigest(digest));
  struct stat info {};
  if (::stat(PathOf(digest).c_str(), &info) != 0) return ErrnoStatus(errno, Label(digest));
  return static_cast<uint64_t>(info.st_size);
}

bool ObjectStore::Has(const Digest& digest) const {
  return Size(digest).ok();
}

Status ObjectStore::Remove(const Digest& digest) {
  LEPTON_RETURN_IF_ERROR(CheckDigest(digest));
  if (::unlink(PathOf(digest).c_str()) != 0) return ErrnoStatus(errno, Label(digest));
  return SyncFolder(PathOf(digest).parent_path());
}

Result<std::vector<ObjectStore::Stored>> ObjectStore::List() const {
  std::vector<Stored> all;
  std::error_code error;
  fs::recursive_directory_iterator it(root_ / "objects", error);
  for (; !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    Stored stored{it->path().filename().string(), 0, {}};
    struct stat info {};
    // Removed meanwhile, perhaps.
    if (!IsDigest(stored.digest) || ::stat(it->path().c_str(), &info) != 0) continue;
    stored.bytes = static_cast<uint64_t>(info.st_size);
    stored.used = ModifiedAt(info);
    all.push_back(std::move(stored));
  }
  if (error) return ErrnoStatus(error.value(), "object store: " + root_.string());
  return all;
}

Status ObjectStore::Touch(const Digest& digest) const {
  LEPTON_RETURN_IF_ERROR(CheckDigest(digest));
  if (::utimensat(AT_FDCWD, PathOf(digest).c_str(), nullptr, 0) != 0) {
    return ErrnoStatus(errno, Label(digest));
  }
  return Status::Ok();
}

// Taken aside first: from there on it is either not found, and stored anew, or was touched before,
// which shows in its time.
Result<bool> ObjectStore::RemoveUnused(const Digest& digest, Time since) {
  LEPTON_RETURN_IF_ERROR(CheckDigest(digest));
  const fs::path aside = root_ / "tmp" / (digest + "." + RandomHex(4));
  struct stat info {};
  if (::stat(PathOf(digest).c_str(), &info) != 0) return ErrnoStatus(errno, Label(digest));
  if (ModifiedAt(info) > since) return false;
  if (::rename(PathOf(digest).c_str(), aside.c_str()) != 0) {
    return ErrnoStatus(errno, Label(digest));
  }
  if (::stat(aside.c_str(), &info) == 0 && ModifiedAt(info) > since &&
      ::rename(aside.c_str(), PathOf(digest).c_str()) == 0) {
    return false;
  }
  ::unlink(aside.c_str());
  return true;
}

}  // namespace lepton::storage
