// How this process was started, and how the processes of one mpirun or srun tell each other where
// to meet, through PMIx: no file, no port and no MPI_Init (Open MPI 4.1 could not survive a peer's
// death after it).
#pragma once

#include <map>
#include <string>

#include "runtime/base/clock.h"
#include "runtime/base/status.h"

namespace lepton::cli {

struct Launch {
  std::string launcher = "none";  // "mpirun" | "srun" | "none"
  int rank = 0;
  int size = 1;
  int local_size = 1;  // processes of this launch on this host
  std::string world;   // equal for all processes of the launch; "" alone
};

// From the environment that mpirun and srun set. Costs nothing.
Launch DetectLaunch();

// Gives every process of the launch what rank 0 passes as `message`. kUnavailable when the launcher
// offers no PMIx (srun without --mpi=pmix, or a build without libpmix); kDeadlineExceeded.
// Call at most once per process.
Result<std::string> ShareFromRankZero(const Launch& launch, const std::string& message,
                                      Deadline deadline);

// This host's name, and an address of it that other hosts reach: $LEPTON_HOST_ADDRESS (for hosts
// with several networks), else the source address of the default route, else the host name.
std::string HostName();
std::string HostAddress();

}  // namespace lepton::cli
