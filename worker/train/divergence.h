// Ranks that must hold equal parameters and do not: a bit that flipped in one rank's memory, or a
// host that computes otherwise. A digest of each rank's parameters rides on every step's reduction
// (step_tail.h), taken when the rank's own gradient is ready. So a parameter that changes by itself
// before that is seen in the same step, whose gradient is then not applied by anybody; one that
// changes later, in the reduction or the update, is seen in the next step.
//
// Not seen: a gradient that was computed wrongly (its sum is equal on all ranks), optimiser state
// before it has changed a parameter, a gang of one.
// Threads: pure but for FindTensor.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "collectives/communicator.h"
#include "runtime/base/status.h"
#include "runtime/nn/training_program.h"

namespace lepton::worker {

// What the ranks' digests say.
struct Census {
  std::vector<int> odd;  // ranks that do not hold what most hold; all of them without a majority
  int agreeing = 0;      // more than half of the ranks hold the same; 0: no majority
  int right = 0;         // one of those; without a majority the first
  bool agree() const { return odd.empty(); }
  bool IsOdd(int rank) const;
};
// `digests` by rank; those of the ranks in `counted` alone if it is not empty.
Census CountDigests(std::span<const uint64_t> digests, std::span<const int> counted = {});

// Collective, once a census is bad: the name of the first tensor in which odd ranks differ from the
// others (without a majority: in which any two differ), equal on all ranks.
Result<std::string> FindTensor(const Census& census, nn::TrainingProgram& program,
                               collectives::Communicator& gang);

}  // namespace lepton::worker
