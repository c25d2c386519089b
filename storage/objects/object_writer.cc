#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "runtime/base/file.h"
#include "runtime/base/hash.h"
#include "storage/objects/object_store.h"

namespace lepton::storage {
namespace fs = std::filesystem;

struct ObjectStore::Writer::State {
  const ObjectStore* store = nullptr;
  fs::path temporary;
  UniqueFd fd;
  Sha256 sha;
  uint64_t size = 0;
};

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
  state->temporary = temporary;
  return std::unique_ptr<Writer>(new Writer(std::move(state)));
}

uint64_t ObjectStore::Writer::size() const {
  return state_->size;
}

Status ObjectStore::Writer::Append(std::string_view bytes) {
  if (!state_->fd.valid()) return FailedPrecondition("object writer: already finished");
  if (Status status = WriteAll(state_->fd.get(), bytes); !status.ok()) {
    state_->fd.Reset();  // what is in the file is not what was appended: refuse to finish it
    return status.WithContext(state_->temporary.string());
  }
  state_->sha.Update(bytes);
  state_->size += bytes.size();
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
