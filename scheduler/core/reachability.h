// Who can go on together when some pairs of an elastic gang's workers cannot reach each other, for
// the reactor and the fold. Threads: pure.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/core/records.pb.h"

namespace lepton::scheduler {

using SeatPair = std::pair<uint32_t, uint32_t>;  // the lesser first

// Pairs of members that cannot reach each other, as either end says. Living ones only.
std::set<SeatPair> CutPairs(const Gang& gang);

// The largest set of `members` that holds both ends of no pair; of several the one that keeps the
// members of lower rank. Exact for every cut that a network is likely to show; where a search would
// take too long, members with the most cuts go first.
std::vector<uint32_t> LargestReachable(const std::vector<uint32_t>& members,
                                       const std::set<SeatPair>& cuts);

bool SamePair(const Cut& a, const Cut& b);
bool HasMemberOn(const Gang& gang, const std::string& worker);
// Workers that are to have no further seat of the gang for now: from them one of its workers cannot
// be reached.
std::set<std::string> WorkersBehindCuts(const Gang& gang, int64_t now_ms);

}  // namespace lepton::scheduler
