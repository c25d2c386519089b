// Which of a host's GPUs a task computes on: of those where this worker has no rank of the same
// gang yet (NCCL refuses two on one), the one that the fewest tasks have, of all workers of the
// machine. So the ranks of a gang, those that take a lost rank's place, the trials of a search and
// jobs side by side spread over the GPUs. How many tasks have one is how many locks on files in its
// name are held; a worker that dies gives its back. Threads: one caller; a share may be dropped on
// any thread.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/file.h"
#include "worker/share_locks.h"

namespace lepton::worker {

// What CUDA_VISIBLE_DEVICES may name for a task, of a worker that sees `count` GPUs. `visible`: the
// worker's own CUDA_VISIBLE_DEVICES, which rules; null: it has none, and all GPUs are there.
std::vector<std::string> GpuNames(int count, const char* visible);

struct GpuShare {
  std::string gpu;  // empty: there is none
  UniqueFd lock;
  std::shared_ptr<const void> counted;  // among this worker's own
};

class GpuShares {
 public:
  // `folder`: of the locks. Where it cannot be used, each worker counts its own tasks alone.
  GpuShares(std::vector<std::string> gpus, std::filesystem::path folder);

  // `gang`: what its ranks have in common; empty: the task is alone.
  std::shared_ptr<const GpuShare> Take(const std::string& gang = "");

  // /dev/shm/lepton-gpus-UID.
  static std::filesystem::path DefaultFolder();

 private:
  struct Taken {
    std::string gang;
    size_t gpu;
    std::weak_ptr<const GpuShare> share;
  };
  // GPUs that may be chosen, best none of the gang's.
  std::vector<size_t> Candidates(const std::string& gang);
  size_t ByLocks(const std::vector<size_t>& candidates, UniqueFd* lock) const;
  size_t ByOwnCount(const std::vector<size_t>& candidates) const;

  const std::vector<std::string> gpus_;
  const ShareLocks locks_;
  const std::vector<std::shared_ptr<const void>> own_;  // one a GPU: its uses are its tasks
  std::vector<Taken> taken_;                            // by ranks of gangs
};

}  // namespace lepton::worker
