#include "collectives/transport/lanes.h"

#include <algorithm>

namespace lepton::collectives {
namespace {

constexpr int kUsualLanes = 4;
// As many data connections as a rank has without being asked, in groups of any size: where there
// are many peers, there are many connections as it is.
constexpr int kUsualConnections = 64;
// A shorter stretch is not worth its system calls.
constexpr size_t kLeastStretch = size_t{64} << 10;
constexpr size_t kCacheLine = 64;

}  // namespace

int LanesBetween(const std::vector<MemberAddress>& members, int a, int b) {
  const bool one_host = members[a].host_identity == members[b].host_identity;
  const int ranks = static_cast<int>(members.size());
  const int open = one_host ? 1 : std::clamp(kUsualConnections / ranks, 1, kUsualLanes);
  int lanes = kMaxLanes;
  for (const MemberAddress& member : members) {
    lanes = std::min(lanes, member.lanes > 0 ? member.lanes : open);
  }
  return lanes;
}

size_t StretchBytes(size_t bytes, int lanes) {
  const size_t used = std::clamp<size_t>(bytes / kLeastStretch, 1, static_cast<size_t>(lanes));
  const size_t equal = (bytes + used - 1) / used;
  return used == 1 ? bytes : (equal + kCacheLine - 1) / kCacheLine * kCacheLine;
}

}  // namespace lepton::collectives
