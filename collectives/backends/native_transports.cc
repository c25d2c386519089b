#include "collectives/backends/native_transports.h"

#include <algorithm>

#include "collectives/transport/link_mesh.h"
#include "collectives/transport/shm_link.h"
#include "collectives/transport/tcp_link.h"

namespace lepton::collectives {

NativeTransports MakeNativeTransports(const GroupSpec& group, ControlPlane& control, bool blind) {
  JoinedGroup& joined = control.joined;
  const auto& failure = control.failure;
  const auto& local = joined.local_ranks;
  auto index_of = [&](int r) {
    auto at = std::find(local.begin(), local.end(), r);
    return at == local.end() ? -1 : static_cast<int>(at - local.begin());
  };
  const int self = index_of(group.rank);
  Bell* bell = joined.segment == nullptr ? nullptr : &joined.segment->bell(self);
  const std::string& here = control.members[group.rank].host_identity;
  std::vector<int> neighbours;
  for (const MemberAddress& member : control.members) {
    if (member.host_identity == here) neighbours.push_back(member.pid);
  }
  NativeTransports out;
  out.crowded = !HaveCoresOfTheirOwn(neighbours);
  Waiter waiter(*failure, bell, !out.crowded, blind);
  if (bell != nullptr) {
    failure->AddWaker([segment = joined.segment, self] { RingAlways(segment->bell(self)); });
  }
  std::vector<std::vector<std::unique_ptr<Link>>> links(static_cast<size_t>(group.size));
  for (int peer = 0; peer < group.size; ++peer) {
    if (peer == group.rank) continue;
    int index = index_of(peer);
    if (joined.segment != nullptr && index >= 0) {
      links[peer].push_back(std::make_unique<ShmLink>(joined.segment, failure, self, index, peer));
    } else {
      for (UniqueFd& lane : joined.data[peer]) {
        links[peer].push_back(std::make_unique<TcpLink>(std::move(lane)));
      }
    }
  }
  out.mesh = std::make_unique<LinkMesh>(std::move(links), failure, waiter, blind);
  if (joined.segment != nullptr && static_cast<int>(local.size()) == group.size) {
    out.window = std::make_unique<SharedWindow>(joined.segment, group.rank, failure, waiter);
  }
  return out;
}

}  // namespace lepton::collectives
