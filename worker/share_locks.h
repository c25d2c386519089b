// Locks on files by which all workers of a machine agree on who has what of it. They end with who
// holds them, however that ends. Threads: one caller; a lock may be dropped on any thread.
#pragma once

#include <filesystem>
#include <string>

#include "runtime/base/file.h"

namespace lepton::worker {

class ShareLocks {
 public:
  // `folder`: of the locks, made when it is needed; the same for all workers of a machine.
  explicit ShareLocks(std::filesystem::path folder);

  // False: there is none of our own. Somebody else's would let them stop us from working.
  bool HasFolder() const;
  // While one worker looks at what is free, others wait. Not valid: it took too long.
  UniqueFd AwaitTurn() const;
  // Not valid: another has it.
  UniqueFd Try(const std::string& name) const;

 private:
  const std::filesystem::path folder_;
};

}  // namespace lepton::worker
