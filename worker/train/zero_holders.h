// Which ranks hold which elements of a training state in slices, as ranks told each other when they
// met: `held` has the parts of each rank.
// Threads: pure.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/train/zero_layout.h"

namespace lepton::worker {

// Elements that travel at once: the size of staging buffers.
inline constexpr int64_t kZeroChunk = int64_t{1} << 18;

bool Holds(const std::vector<Elements>& held, const Elements& part);
// `range`, cut wherever some rank's part begins or ends.
std::vector<Elements> CutAtParts(const Elements& range,
                                 const std::vector<std::vector<Elements>>& held);
// The first rank that holds the part; -1: nobody.
int FirstHolder(const std::vector<std::vector<Elements>>& held, const Elements& part);
// The first rank that is true; -1: none is.
int FirstOf(const std::vector<bool>& ranks);

}  // namespace lepton::worker
