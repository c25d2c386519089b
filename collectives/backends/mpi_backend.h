// The MPI back-end: bytes travel by MPI, for fabrics that MPI knows and TCP does not.
//
// Static gangs inside one mpirun or srun world: an endpoint's place is its world rank, and a group
// is any subset of the world, made with MPI_Comm_create_group once its ranks have met over the
// control connections. MPI_Init_thread runs at the first Listen (it waits for the whole world,
// without a deadline: MPI has none), MPI_Finalize at exit unless a group failed; after that nothing
// in this world gets through MPI_Init again, other processes included. The scheduler sees to both
// (scheduler/placement/whole_world.h). Limits: Open
// MPI 4.1 ends the whole job when a process of it dies, whatever this back-end does. After
// kDeadlineExceeded or an abort MPI may still write into the buffers of the broken operation: keep
// them until the process ends.
#pragma once

#include "collectives/communicator.h"

namespace lepton::collectives {

class MpiBackend final : public Backend {
 public:
  std::string_view name() const override { return "mpi"; }
  Status Available() const override;
  // Whether this process will end without MPI_Finalize, since a group of it has failed. It counts
  // once its communicators are gone. Any thread.
  static bool LeavesOpen();
  Result<std::unique_ptr<Endpoint>> Listen(const std::string& bind_address) const override;
  Result<std::unique_ptr<Communicator>> Join(std::unique_ptr<Endpoint> endpoint,
                                             const GroupSpec& group, const Options& options,
                                             Deadline deadline) const override;
};

}  // namespace lepton::collectives
