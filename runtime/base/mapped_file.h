// A file's bytes in memory without a copy: pages come from the disk as they are touched and go back
// to it when memory is short, so a file may be larger than memory.
// Only for files that nobody cuts short meanwhile (objects, caches): a page that is no longer there
// ends the process. Threads: any may read. Move-only; views of bytes() live as long as it.
#pragma once

#include <filesystem>
#include <span>
#include <string_view>
#include <utility>

#include "runtime/base/status.h"

namespace lepton {

class MappedFile {
 public:
  MappedFile() = default;  // no bytes
  static Result<MappedFile> Open(const std::filesystem::path& path);
  MappedFile(MappedFile&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  MappedFile& operator=(MappedFile&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~MappedFile();

  size_t size() const { return size_; }
  std::string_view bytes() const { return {static_cast<const char*>(data_), size_}; }
  // The bytes from `offset` on as `count` numbers; the caller has checked that they are there. The
  // start of a file is aligned to a page.
  template <typename T>
  std::span<const T> As(size_t offset, size_t count) const {
    return {reinterpret_cast<const T*>(static_cast<const char*>(data_) + offset), count};
  }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace lepton
