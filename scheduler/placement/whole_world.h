// A gang of MPI: all workers of one mpirun or srun, one rank on each. Of several worlds that would
// do the largest is taken. Threads: pure.
#pragma once

#include <vector>

#include "scheduler/placement/placement.h"

namespace lepton::placement {

// `seats`: those that the request allows. The reason of a refusal names what is wrong with each
// world, up to three.
Placement PlaceInWholeWorld(const std::vector<const Seat*>& seats, const GangRequest& request);

}  // namespace lepton::placement
