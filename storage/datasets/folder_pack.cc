#include "storage/datasets/folder_pack.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>

#include <cerrno>
#include <memory>

#include "storage/datasets/file_walk.h"
#include "storage/datasets/picture_names.h"
#include "storage/datasets/utf8_locale.h"

namespace lepton::storage {
namespace {

la_ssize_t AppendTo(struct archive*, void* out, const void* bytes, size_t size) {
  static_cast<std::string*>(out)->append(static_cast<const char*>(bytes), size);
  return static_cast<la_ssize_t>(size);
}

class Packer final : public FileVisitor {
 public:
  Packer(struct archive* writer, const std::string& out, uint64_t limit)
      : writer_(writer), out_(out), limit_(limit) {}

  Result<bool> Wants(const std::string& path, uint64_t bytes) override {
    LEPTON_ASSIGN_OR_RETURN(const bool picture, IsPictureName(path));
    if (picture && out_.size() + bytes > limit_) {
      return ResourceExhausted(path + ": the pictures have more than " + std::to_string(limit_) +
                               " bytes together");
    }
    return picture;
  }
  Status Visit(const std::string& path, std::string bytes) override {
    const std::unique_ptr<archive_entry, void (*)(archive_entry*)> entry(archive_entry_new(),
                                                                         archive_entry_free);
    archive_entry_set_pathname(entry.get(), path.c_str());
    archive_entry_set_filetype(entry.get(), AE_IFREG);
    archive_entry_set_perm(entry.get(), 0644);
    archive_entry_set_size(entry.get(), static_cast<la_int64_t>(bytes.size()));
    if (archive_write_header(writer_, entry.get()) != ARCHIVE_OK ||
        archive_write_data(writer_, bytes.data(), bytes.size()) !=
            static_cast<la_ssize_t>(bytes.size())) {
      return Internal(path + ": " + archive_error_string(writer_));
    }
    return Status::Ok();
  }
  Status Progress(uint64_t, uint64_t) override { return Status::Ok(); }

 private:
  struct archive* writer_;
  const std::string& out_;
  const uint64_t limit_;
};

}  // namespace

Result<std::string> PackFolder(const std::filesystem::path& folder, uint64_t limit_bytes) {
  UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return ErrnoStatus(errno, folder.string());
  std::string out;
  const std::unique_ptr<struct archive, int (*)(struct archive*)> writer(archive_write_new(),
                                                                         archive_write_free);
  if (writer == nullptr) return ResourceExhausted("out of memory");
  const Utf8Locale names;
  archive_write_set_format_pax_restricted(writer.get());
  archive_write_open(writer.get(), &out, nullptr, AppendTo, nullptr);
  Packer packer(writer.get(), out, limit_bytes);
  LEPTON_RETURN_IF_ERROR(WalkFolder(std::move(fd), packer).WithContext(folder.string()));
  if (archive_write_close(writer.get()) != ARCHIVE_OK) {
    return Internal(std::string("archive: ") + archive_error_string(writer.get()));
  }
  return out;
}

}  // namespace lepton::storage
