// A request's body that went to disk as it arrived, because it may be larger than memory should
// hold. The file has no name: it is gone with the last reference, also when the process is killed.
// Threads: Append from one; reads after the last Append from any.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "runtime/base/file.h"
#include "runtime/base/status.h"

namespace lepton::http {

class BodyFile {
 public:
  // On the file system of `folder`. kResourceExhausted, kPermissionDenied: of the disk.
  static Result<std::shared_ptr<BodyFile>> Make(const std::filesystem::path& folder);

  Status Append(std::string_view bytes);
  uint64_t size() const { return size_; }
  // For reading from the start, with an offset of its own.
  Result<UniqueFd> Open() const;

 private:
  explicit BodyFile(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
  uint64_t size_ = 0;
};

}  // namespace lepton::http
