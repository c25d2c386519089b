// What every back-end must do, as the body of one rank: the same checks whatever carries the bytes.
#pragma once

#include <string>

#include "collectives/communicator.h"

namespace lepton::collectives {

// Sizes {0, 1, 1021, 1 MB} x types x operations x reductions x roots, in place and not, blocking
// and asynchronous; sub-groups. An empty string, or the first thing that is wrong.
std::string RunConformance(Communicator& communicator);

}  // namespace lepton::collectives
