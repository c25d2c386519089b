#include "collectives/backends/control_plane.h"

#include <unistd.h>

namespace lepton::collectives {
namespace {

class ListeningEndpoint final : public Endpoint {
 public:
  ListeningEndpoint(std::string_view backend, std::string place, std::string identity,
                    Listener listener, int lanes)
      : address_{std::string(backend),
                 std::move(place),
                 std::move(identity),
                 getpid(),
                 listener.host,
                 listener.port,
                 lanes},
        listener_(std::move(listener)) {}
  std::string address() const override { return address_.Encode(); }
  Listener TakeListener() { return std::move(listener_); }

 private:
  MemberAddress address_;
  Listener listener_;
};

Status CheckSpec(const GroupSpec& group) {
  if (group.size < 1 || group.rank < 0 || group.rank >= group.size) {
    return InvalidArgument("rank " + std::to_string(group.rank) + " of a group of " +
                           std::to_string(group.size));
  }
  if (group.size == 1) return {};
  if (static_cast<int>(group.members.size()) != group.size) {
    return InvalidArgument("members: " + std::to_string(group.members.size()) +
                           " addresses for a group of " + std::to_string(group.size));
  }
  if (group.token.size() != 16) {
    return InvalidArgument("token: " + std::to_string(group.token.size()) +
                           " bytes where 16 secret ones are needed");
  }
  return {};
}

Result<std::vector<MemberAddress>> DecodeMembers(const Listener& listener, const GroupSpec& group,
                                                 std::string_view backend) {
  std::vector<MemberAddress> members;
  for (const std::string& bytes : group.members) {
    LEPTON_ASSIGN_OR_RETURN(auto member, MemberAddress::Decode(bytes, backend));
    members.push_back(std::move(member));
  }
  const MemberAddress& own = members[group.rank];
  if (own.pid != getpid() || own.port != listener.port) {
    return InvalidArgument("members[" + std::to_string(group.rank) +
                           "] is not the address of this endpoint");
  }
  return members;
}

}  // namespace

Result<std::unique_ptr<Endpoint>> ListenForPeers(std::string_view backend, std::string place,
                                                 const std::string& bind_address,
                                                 const std::string& host, int lanes) {
  LEPTON_ASSIGN_OR_RETURN(Listener listener, ListenOn(bind_address));
  std::string identity = HostIdentity();
  if (!host.empty()) identity += "/" + host;
  return std::unique_ptr<Endpoint>(new ListeningEndpoint(
      backend, std::move(place), std::move(identity), std::move(listener), lanes));
}

Result<ControlPlane> MeetPeers(std::unique_ptr<Endpoint> endpoint, const GroupSpec& group,
                               std::string_view backend, TransportChoice transport,
                               const Options& options, Deadline deadline) {
  LEPTON_RETURN_IF_ERROR(CheckSpec(group));
  ControlPlane out;
  LEPTON_ASSIGN_OR_RETURN(out.failure, Failure::Make(group.size));
  if (group.size == 1) return out;
  auto* listening = dynamic_cast<ListeningEndpoint*>(endpoint.get());
  if (listening == nullptr) {
    return InvalidArgument("endpoint: not made by the " + std::string(backend) + " back-end");
  }
  Listener listener = listening->TakeListener();
  LEPTON_ASSIGN_OR_RETURN(out.members, DecodeMembers(listener, group, backend));
  LEPTON_ASSIGN_OR_RETURN(out.joined, Rendezvous(std::move(listener), group, out.members, transport,
                                                 options, deadline));
  return out;
}

}  // namespace lepton::collectives
