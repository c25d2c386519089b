// Runs the ranks of a group for a test, as forked processes or as threads of this one (so that
// ThreadSanitizer sees them all).
#pragma once

#include <sys/types.h>

#include <functional>
#include <string>
#include <vector>

#include "collectives/communicator.h"

namespace lepton::collectives {

enum class RanksAs { kProcesses, kThreads };

struct GangOptions {
  const Backend* backend = nullptr;
  int size = 2;
  RanksAs ranks_as = RanksAs::kProcesses;
  Options communicator;
  uint64_t epoch = 7;
  int leaves = 0;
  std::string token = "0123456789abcdef";
  std::vector<const Backend*> backends;  // by rank, if not all have the same
  // Called in each rank's process before anything else.
  std::function<void(int rank)> at_start;
  // Called in the parent once all ranks have joined, with their process ids (empty for threads).
  std::function<void(const std::vector<pid_t>&)> when_joined;
};

// What a rank did: an empty string is success, anything else the failure's text.
using RankBody = std::function<std::string(Communicator&)>;

// One string a rank, by rank; "killed by signal 9" for a process that was. Call from a process
// without other threads when ranks are processes.
std::vector<std::string> RunGang(const GangOptions& options, const RankBody& body);

}  // namespace lepton::collectives
