#include "collectives/backends/native_backend.h"

#include <algorithm>
#include <cstdlib>

#include "collectives/backends/mesh_communicator.h"
#include "collectives/transport/link_mesh.h"
#include "collectives/transport/shm_link.h"
#include "collectives/transport/tcp_link.h"

namespace lepton::collectives {
namespace {

struct Transports {
  std::unique_ptr<Mesh> mesh;
  std::unique_ptr<SharedWindow> window;  // when the whole group shares memory
};

// Shared memory where there is some, TCP elsewhere. Takes the data connections.
Transports MakeTransports(const GroupSpec& group, ControlPlane& control) {
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
  Waiter waiter(*failure, bell, HaveCoresOfTheirOwn(neighbours));
  if (bell != nullptr) {
    failure->AddWaker([segment = joined.segment, self] { RingAlways(segment->bell(self)); });
  }
  std::vector<std::unique_ptr<Link>> links(static_cast<size_t>(group.size));
  for (int peer = 0; peer < group.size; ++peer) {
    if (peer == group.rank) continue;
    int index = index_of(peer);
    if (joined.segment != nullptr && index >= 0) {
      links[peer] = std::make_unique<ShmLink>(joined.segment, failure, self, index, peer);
    } else {
      links[peer] = std::make_unique<TcpLink>(std::move(joined.data[peer]));
    }
  }
  Transports out;
  out.mesh = std::make_unique<LinkMesh>(std::move(links), failure, waiter);
  if (joined.segment != nullptr && static_cast<int>(local.size()) == group.size) {
    out.window = std::make_unique<SharedWindow>(joined.segment, group.rank, failure, waiter);
  }
  return out;
}

}  // namespace

Result<std::unique_ptr<Endpoint>> NativeBackend::Listen(const std::string& bind_address) const {
  return ListenForPeers(name(), "", bind_address);
}

Result<std::unique_ptr<Communicator>> NativeBackend::Join(std::unique_ptr<Endpoint> endpoint,
                                                          const GroupSpec& group,
                                                          const Options& options,
                                                          Deadline deadline) const {
  LEPTON_ASSIGN_OR_RETURN(NativeOptions native, Resolve());
  LEPTON_ASSIGN_OR_RETURN(ControlPlane control, MeetPeers(std::move(endpoint), group, name(),
                                                          native.transport, deadline));
  Transports transports;
  if (group.size > 1) transports = MakeTransports(group, control);
  return MeshCommunicator::Make(name(), group, options, control, std::move(transports.mesh),
                                std::move(transports.window), native.algorithm);
}

Result<NativeOptions> NativeBackend::Resolve() const {
  if (fixed_) return options_;
  NativeOptions out;
  const char* algorithm = std::getenv("LEPTON_COLLECTIVES_ALGORITHM");
  if (algorithm != nullptr) out.algorithm = algorithm;
  const char* transport = std::getenv("LEPTON_COLLECTIVES_TRANSPORT");
  std::string_view choice = transport == nullptr ? "auto" : transport;
  if (choice == "tcp") {
    out.transport = TransportChoice::kTcp;
  } else if (choice == "shm") {
    out.transport = TransportChoice::kShm;
  } else if (choice != "auto") {
    return InvalidArgument("LEPTON_COLLECTIVES_TRANSPORT: '" + std::string(choice) +
                           "' is not auto, shm or tcp");
  }
  return out;
}

}  // namespace lepton::collectives
