// Lanes: the TCP connections between two ranks. Networks limit what one connection gets: clouds its
// rate, switches and bonded cards send all of it one way, and its receiver's kernel works on one
// core. So what is large travels in equal stretches, one on each lane; each lands where it belongs,
// however far the others are. What is small takes the first lane alone
// (docs/decisions/lanes.md).
#pragma once

#include <cstddef>
#include <vector>

#include "collectives/transport/member_address.h"

namespace lepton::collectives {

// The most that a rank may want.
inline constexpr int kMaxLanes = 16;

// How many lanes ranks `a` and `b` have where they share no memory: the fewest that any rank of the
// group wants, which all know before they meet. Who leaves it open wants one within a host, and
// between hosts four, fewer where there are more than 16 ranks.
int LanesBetween(const std::vector<MemberAddress>& members, int a, int b);

// Of a transfer of so many bytes over a pair's `lanes`, what each lane carries; the last one has
// what is left, and those behind it nothing. Never 0 for a transfer that is not empty.
size_t StretchBytes(size_t bytes, int lanes);

}  // namespace lepton::collectives
