// Sub-groups of a communicator's ranks.
#pragma once

#include <memory>
#include <string>

#include "collectives/communicator.h"

namespace lepton::collectives {

// Collective over all ranks of `parent`: those with the same `color` (>= 0) form a group of their
// own, ordered as in `parent`, by the same back-end; null with a negative one. The new group lives
// and fails apart from `parent`. `bind_address` as of Backend::Listen, `leaves` as of GroupSpec.
Result<std::unique_ptr<Communicator>> Split(Communicator& parent, int color,
                                            const std::string& bind_address, const Options& options,
                                            Deadline deadline, int leaves = 0);

}  // namespace lepton::collectives
