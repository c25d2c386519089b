// Which trial of a search is the best so far: its model is the search's result.
#pragma once

#include "scheduler/core/records.pb.h"

namespace lepton::scheduler {

// The index of the trial with the best value and a model; of equals the one that trained longer,
// then the older. One that failed behind its value only where no other has one. -1: none. Threads:
// a pure function.
int BestTrial(const Job& job, bool maximize);

}  // namespace lepton::scheduler
