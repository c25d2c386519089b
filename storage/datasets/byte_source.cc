#include "storage/datasets/byte_source.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace lepton::storage {
namespace {
constexpr size_t kPieceBytes = size_t{1} << 20;
}

ByteSource ByteSource::FromMemory(std::string_view bytes) {
  ByteSource source;
  source.memory_ = bytes;
  source.size_ = bytes.size();
  return source;
}

Result<ByteSource> ByteSource::FromFile(UniqueFd fd) {
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) return ErrnoStatus(errno, "fstat");
  if (!S_ISREG(info.st_mode)) return InvalidArgument("not a regular file");
  ByteSource source;
  source.fd_ = std::move(fd);
  source.size_ = static_cast<uint64_t>(info.st_size);
  return source;
}

Result<std::string_view> ByteSource::Next() {
  if (!fd_.valid()) {
    const std::string_view piece = memory_.substr(done_, kPieceBytes);
    done_ += piece.size();
    return piece;
  }
  buffer_.resize(kPieceBytes);
  size_t filled = 0;
  while (filled < buffer_.size()) {
    const ssize_t n = ::read(fd_.get(), buffer_.data() + filled, buffer_.size() - filled);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, "read");
    if (n == 0) break;
    filled += static_cast<size_t>(n);
  }
  done_ += filled;
  return std::string_view(buffer_).substr(0, filled);
}

Result<std::string> ByteSource::ReadAll(uint64_t limit) {
  const auto too_large = [&] {
    return ResourceExhausted("has " + std::to_string(size_) + " bytes; the limit is " +
                             std::to_string(limit));
  };
  if (size_ > limit) return too_large();
  std::string all;
  all.reserve(size_);
  for (;;) {
    LEPTON_ASSIGN_OR_RETURN(const std::string_view piece, Next());
    if (piece.empty()) return all;
    if (all.size() + piece.size() > limit) return too_large();  // it grew meanwhile
    all += piece;
  }
}

Result<std::string> ByteSource::Peek(size_t max) {
  LEPTON_ASSIGN_OR_RETURN(const std::string_view piece, Next());
  std::string start(piece.substr(0, max));
  LEPTON_RETURN_IF_ERROR(Rewind());
  return start;
}

Status ByteSource::Rewind() {
  done_ = 0;
  if (fd_.valid() && ::lseek(fd_.get(), 0, SEEK_SET) != 0) return ErrnoStatus(errno, "lseek");
  return Status::Ok();
}

}  // namespace lepton::storage
