#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "runtime/base/file.h"
#include "runtime/base/hash.h"
#include "runtime/base/progress.h"
#include "storage/objects/object_store.h"

namespace lepton::storage {
namespace fs = std::filesystem;
namespace {

constexpr size_t kPiece = size_t{1} << 20;
constexpr uint64_t kAhead = uint64_t{8} << 20;

}  // namespace

struct ObjectStore::Writer::State {
  const ObjectStore* store = nullptr;
  fs::path temporary;
  UniqueFd fd;
  Sha256 sha;
  uint64_t size = 0;
  uint64_t pushed = 0;  // of it, on their way to the disk; all but kAhead of them are there

  Status PushOut();
};

// What is written goes to the disk as more comes, so that the end has little to wait for: a large
// object's fsync could take minutes, in which nobody sees whether the disk moves or hangs.
Status ObjectStore::Writer::State::PushOut() {
  if (size - pushed < kAhead) return Status::Ok();
  const auto push = [this](uint64_t begin, uint64_t end, unsigned flags) {
    const int done = ::sync_file_range(fd.get(), static_cast<off_t>(begin),
                                       static_cast<off_t>(end - begin), flags);
    // An error of the disk is told once, here or to fsync; others say that the files here have none
    // of this.
    const bool failed = done != 0 && (errno == EIO || errno == ENOSPC || errno == EDQUOT);
    return failed ? ErrnoStatus(errno, "write") : Status::Ok();
  };
  LEPTON_RETURN_IF_ERROR(push(pushed, size, SYNC_FILE_RANGE_WRITE));
  const uint64_t before = std::exchange(pushed, size);
  if (before == 0) return Status::Ok();
  return push(before - std::min(before, kAhead), before,
              SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
}

ObjectStore::Writer::Writer(std::unique_ptr<State> state) : state_(std::move(state)) {}

ObjectStore::Writer::~Writer() {
  if (state_ && !state_->temporary.empty()) ::unlink(state_->temporary.c_str());
}

Result<std::unique_ptr<ObjectStore::Writer>> ObjectStore::NewObject() const {
  auto state = std::make_unique<Writer::State>();
  state->store = this;
  const fs::path temporary = root_ / "tmp" / RandomHex(16);
  state->fd.Reset(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!state->fd.valid()) return ErrnoStatus(errno, temporary.string());
  // For RemoveStaleFiles: however old it is, it is written. Gone with the last descriptor.
  ::flock(state->fd.get(), LOCK_EX | LOCK_NB);
  state->temporary = temporary;
  return std::unique_ptr<Writer>(new Writer(std::move(state)));
}

uint64_t ObjectStore::Writer::size() const {
  return state_->size;
}

Status ObjectStore::Writer::Append(std::string_view bytes) {
  if (!state_->fd.valid()) return FailedPrecondition("object writer: already finished");
  while (!bytes.empty()) {
    const std::string_view piece = bytes.substr(0, kPiece);
    Status status = WriteAll(state_->fd.get(), piece);
    state_->sha.Update(piece);
    state_->size += piece.size();
    if (status.ok()) status = state_->PushOut();
    if (!status.ok()) {
      state_->fd.Reset();  // what is in the file is not what was appended: refuse to finish it
      return status.WithContext(state_->temporary.string());
    }
    progress::Moved();
    bytes.remove_prefix(piece.size());
  }
  return Status::Ok();
}

Result<Digest> ObjectStore::Writer::Finish(const Digest& expected) {
  State& s = *state_;
  if (!s.fd.valid()) return FailedPrecondition("object writer: finished or failed before");
  const Digest digest = s.sha.FinalHex();
  const UniqueFd fd = std::move(s.fd);
  if (!expected.empty() && digest != expected) {
    return DataLoss("object " + expected + ": the bytes received have the digest " + digest);
  }
  if (::fsync(fd.get()) != 0) return ErrnoStatus(errno, s.temporary.string());
  const fs::path path = s.store->PathOf(digest);
  const fs::path folder = path.parent_path();
  if (::mkdir(folder.c_str(), 0755) == 0) {
    LEPTON_RETURN_IF_ERROR(SyncFolder(folder.parent_path()));
  } else if (errno != EEXIST) {
    return ErrnoStatus(errno, folder.string());
  }
  if (::rename(s.temporary.c_str(), path.c_str()) != 0) {
    return ErrnoStatus(errno, path.string());
  }
  s.temporary.clear();
  LEPTON_RETURN_IF_ERROR(SyncFolder(folder));
  return digest;
}

}  // namespace lepton::storage
