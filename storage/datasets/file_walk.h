// The files of a folder or of an archive, one after another, each read into memory whole.
// Threads: one caller a walk.
#pragma once

#include <functional>
#include <string>

#include "runtime/base/file.h"
#include "storage/datasets/byte_source.h"

namespace lepton::storage {

class FileVisitor {
 public:
  virtual ~FileVisitor() = default;
  // Whether to read this file at all. Paths are relative and without "." and "..".
  virtual Result<bool> Wants(const std::string& path, uint64_t bytes) = 0;
  virtual Status Visit(const std::string& path, std::string bytes) = 0;
  // `done` of `total` (files of a folder, bytes of an archive). An error ends the walk.
  virtual Status Progress(uint64_t done, uint64_t total) = 0;
};

// In order of path. Symbolic links, devices and the like are kInvalidArgument by name; so are
// folders nested deeper than 32.
Status WalkFolder(UniqueFd folder, FileVisitor& visitor);
// In the archive's order: tar (also compressed by gzip, bzip2, xz or zstd) and zip, through
// libarchive. kInvalidArgument for a damaged one and for paths that lead out of it; links and other
// special entries are refused by name.
Status WalkArchive(ByteSource& archive, FileVisitor& visitor);

}  // namespace lepton::storage
