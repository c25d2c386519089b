// Which CPUs a task runs on. A task of several slots gets a share of the machine's CPUs for itself,
// neighbours, beside one memory (NUMA node) if possible; one of a single slot stays beside a
// memory, so that its threads that only wait may use what is idle there. Shares are locks on a file
// for each CPU: all workers of a machine take them alike, and a worker that dies gives its back.
// Threads: one caller; a share may be dropped on any thread.
#pragma once

#include <sched.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "runtime/base/file.h"
#include "worker/share_locks.h"

namespace lepton::worker {

struct Cpu {
  int id = 0;    // as the kernel numbers them
  int node = 0;  // the memory that is near

  friend bool operator==(const Cpu&, const Cpu&) = default;
};

// Those of `allowed`, neighbours side by side, as hwloc sees the machine.
std::vector<Cpu> ReadCpus(const cpu_set_t& allowed);
// Those that this process may run on.
std::vector<Cpu> UsableCpus();

struct CpuShare {
  std::vector<int> cpus;  // that the task may run on; empty: as before
  int node = -1;          // whose memory it should use; -1: no matter
  std::vector<UniqueFd> locks;
};

class CpuShares {
 public:
  // `folder`: of the locks, made when it is needed; the same for all workers of a machine.
  CpuShares(std::vector<Cpu> cpus, std::filesystem::path folder);

  // For a task of `count` slots. Where there is no share for it (more slots than free CPUs, or no
  // folder) it runs anywhere.
  std::shared_ptr<const CpuShare> Take(int count) const;

  // /dev/shm/lepton-cpus-UID.
  static std::filesystem::path DefaultFolder();

 private:
  std::vector<int> OfNode(int node) const;

  const std::vector<Cpu> cpus_;
  const ShareLocks locks_;
  const bool several_nodes_;
};

}  // namespace lepton::worker
