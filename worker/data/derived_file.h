// Files that are worked out of a dataset's objects once and then mapped: token ids of a text,
// pictures of one size. They lie in the object store's folder `derived/`, under a key that says
// what they were made from and how, so that ranks on a host and later tasks share them. What a file
// holds follows from its key, and a file is there only when it is whole. Threads: any. Several
// processes may share the folder: one makes a file, the others wait for it.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "runtime/base/file.h"
#include "runtime/base/mapped_file.h"
#include "storage/objects/object_store.h"

namespace lepton::worker {

class DerivedFiles {
 public:
  // Above `budget_bytes`, those that were not used for longest are deleted when one is made; the
  // newest stays. A file that is mapped stays readable.
  DerivedFiles(const storage::ObjectStore& objects, std::function<bool()> stop_requested,
               uint64_t budget_bytes = uint64_t{64} << 30);

  // Writes the file's bytes into `fd`, a new empty file.
  using Make = std::function<Status(int fd)>;
  // The file of `recipe`, any text that determines its bytes ("pictures v1 <digest> 3x32x32"); made
  // if it is not there. kCancelled when told to stop while it waits for another process;
  // kResourceExhausted when the disk is full.
  Result<std::shared_ptr<const MappedFile>> Open(const std::string& recipe, const Make& make);

 private:
  Status MakeFile(const std::filesystem::path& path, const Make& make);
  void Prune(const std::filesystem::path& keep);

  const std::filesystem::path folder_;
  const std::function<bool()> stop_requested_;
  const uint64_t budget_bytes_;
};

}  // namespace lepton::worker
