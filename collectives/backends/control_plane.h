// What every back-end has besides its own way of moving bytes: an authenticated control connection
// between all ranks, over which deaths, goodbyes and aborts travel. So a group of MPI or NCCL ranks
// is joined, refused and aborted exactly as a native one.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "collectives/communicator.h"
#include "collectives/failure.h"
#include "collectives/transport/rendezvous.h"

namespace lepton::collectives {

// `place`, `lanes`: see MemberAddress. `host`: tells ranks apart that could share memory, and shall
// not.
Result<std::unique_ptr<Endpoint>> ListenForPeers(std::string_view backend, std::string place,
                                                 const std::string& bind_address,
                                                 const std::string& host = "", int lanes = 0);

struct ControlPlane {
  JoinedGroup joined;  // nothing is connected in a group of one
  std::vector<MemberAddress> members;
  std::shared_ptr<Failure> failure;
};

// Checks the spec and meets the peers. kInvalidArgument names the spec's field; else as Rendezvous.
Result<ControlPlane> MeetPeers(std::unique_ptr<Endpoint> endpoint, const GroupSpec& group,
                               std::string_view backend, TransportChoice transport,
                               const Options& options, Deadline deadline);

}  // namespace lepton::collectives
