#include <archive.h>
#include <archive_entry.h>

#include <memory>

#include "storage/datasets/file_walk.h"
#include "storage/datasets/utf8_locale.h"

namespace lepton::storage {
namespace {

constexpr size_t kBlockBytes = size_t{256} << 10;

Status ArchiveError(archive* reader, const std::string& where) {
  const char* text = archive_error_string(reader);
  return InvalidArgument(where + "damaged archive: " + (text == nullptr ? "unreadable" : text));
}

// "./roses/1.jpg" -> "roses/1.jpg".
Result<std::string> CleanPath(const char* raw) {
  if (raw == nullptr) return InvalidArgument("archive: an entry without a readable name");
  std::string clean;
  std::string_view left = raw;
  if (left.starts_with('/')) {
    return InvalidArgument("archive: \"" + std::string(raw) + "\" is an absolute path");
  }
  while (!left.empty()) {
    const size_t slash = std::min(left.find('/'), left.size());
    const std::string_view part = left.substr(0, slash);
    left.remove_prefix(std::min(slash + 1, left.size()));
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      return InvalidArgument("archive: \"" + std::string(raw) + "\" leads out of it");
    }
    clean += (clean.empty() ? "" : "/") + std::string(part);
  }
  return clean;
}

// The entry's bytes, at most `limit`: a compressed entry may not say how many there are.
Result<std::string> ReadEntry(archive* reader, const std::string& path, uint64_t limit) {
  std::string bytes;
  for (;;) {
    const void* block = nullptr;
    size_t size = 0;
    la_int64_t offset = 0;
    const int got = archive_read_data_block(reader, &block, &size, &offset);
    if (got == ARCHIVE_EOF) return bytes;
    if (got < ARCHIVE_WARN) return ArchiveError(reader, path + ": ");
    if (static_cast<uint64_t>(offset) != bytes.size() || bytes.size() + size > limit) {
      return InvalidArgument(path + ": has more bytes than the archive says, or holes");
    }
    bytes.append(static_cast<const char*>(block), size);
  }
}

}  // namespace

Status WalkArchive(ByteSource& archive, FileVisitor& visitor) {
  const Utf8Locale names;
  const std::unique_ptr<struct archive, int (*)(struct archive*)> reader(archive_read_new(),
                                                                         archive_read_free);
  if (reader == nullptr) return ResourceExhausted("out of memory");
  archive_read_support_format_tar(reader.get());
  archive_read_support_format_zip(reader.get());
  archive_read_support_filter_gzip(reader.get());
  archive_read_support_filter_bzip2(reader.get());
  archive_read_support_filter_xz(reader.get());
  archive_read_support_filter_zstd(reader.get());
  const std::string_view memory = archive.memory();
  const int opened = archive.fd() >= 0
                         ? archive_read_open_fd(reader.get(), archive.fd(), kBlockBytes)
                         : archive_read_open_memory(reader.get(), memory.data(), memory.size());
  if (opened != ARCHIVE_OK) return ArchiveError(reader.get(), "");
  for (;;) {
    archive_entry* entry = nullptr;
    const int got = archive_read_next_header(reader.get(), &entry);
    if (got == ARCHIVE_EOF) return Status::Ok();
    if (got < ARCHIVE_WARN) return ArchiveError(reader.get(), "");
    LEPTON_ASSIGN_OR_RETURN(const std::string path, CleanPath(archive_entry_pathname(entry)));
    const auto type = archive_entry_filetype(entry);
    if (type == AE_IFDIR) continue;
    if (type != AE_IFREG || archive_entry_hardlink(entry) != nullptr) {
      return InvalidArgument(path + ": is a link or a special entry: store the file itself");
    }
    const auto read = static_cast<uint64_t>(archive_filter_bytes(reader.get(), -1));
    LEPTON_RETURN_IF_ERROR(visitor.Progress(read, archive.size()));
    const bool sized = archive_entry_size_is_set(entry) != 0;
    const auto size = static_cast<uint64_t>(sized ? archive_entry_size(entry) : 0);
    LEPTON_ASSIGN_OR_RETURN(const bool wanted, visitor.Wants(path, size));
    if (!wanted) continue;
    constexpr uint64_t kUnsizedLimit = uint64_t{64} << 20;
    LEPTON_ASSIGN_OR_RETURN(std::string bytes,
                            ReadEntry(reader.get(), path, sized ? size : kUnsizedLimit));
    LEPTON_RETURN_IF_ERROR(visitor.Visit(path, std::move(bytes)));
  }
}

}  // namespace lepton::storage
