// Texts that are computed together are padded to the longest of them, and a row has the same answer
// in any batch: so those of about one length go together.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "worker/data/examples.h"

namespace lepton::worker {

// `examples` in groups, each for one batch, shorter texts first, those of one length in their
// order. A few short ones go with longer ones: a batch of their own would read all weights for
// them.
std::vector<std::vector<int64_t>> GroupsByLength(const Examples& source,
                                                 std::span<const int64_t> examples);

}  // namespace lepton::worker
