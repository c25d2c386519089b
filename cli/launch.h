// How this process was started, and how the processes of one mpirun or srun tell each other where
// to meet, through PMIx: no file, no port and no MPI_Init (Open MPI 4.1 could not survive a peer's
// death after it).
#pragma once

#include <string>

#include "runtime/base/clock.h"
#include "runtime/base/status.h"
#include "worker/agent.h"

namespace lepton::cli {

struct Launch {
  worker::LauncherInfo info;  // launcher, rank, size, world
  int local_size = 1;         // processes of this launch on this host
};
// From the environment that mpirun and srun set. Costs nothing.
Launch DetectLaunch();

// Gives every process of the launch what rank 0 passes as `message`. kUnavailable when the launcher
// offers no PMIx (srun without --mpi=pmix, or a build without libpmix); kDeadlineExceeded.
// Call at most once per process.
Result<std::string> ShareFromRankZero(const Launch& launch, const std::string& message,
                                      Deadline deadline);

// This host's name, and an address of it that other hosts reach: $LEPTON_HOST_ADDRESS (for hosts
// with several networks), else the source address of the default route, else that of the first
// interface that is up, else 127.0.0.1. Numeric (IPv4) unless the variable has something else.
std::string HostName();
std::string HostAddress();

}  // namespace lepton::cli
