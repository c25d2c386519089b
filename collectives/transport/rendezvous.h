// Turns the listening endpoints of all ranks into one connected group. Collective and blocking.
//
//   1. control connections: each rank connects to every lower rank, all at once, and accepts from
//      every higher one; those that do not come it probes
//   2. shared memory: the lowest rank of each host makes a segment, the others map it; if any of
//      them cannot, that host's ranks use TCP
//   3. data connections, one a lane, between ranks that share no memory
//   4. everybody tells everybody that it is ready, so that nobody starts with half a group
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "collectives/communicator.h"
#include "collectives/transport/handshake.h"
#include "collectives/transport/member_address.h"
#include "collectives/transport/shared_segment.h"
#include "collectives/transport/socket.h"

namespace lepton::collectives {

// kNone: control connections only, for back-ends that bring their own transport.
enum class TransportChoice { kAuto, kShm, kTcp, kNone };

struct JoinedGroup {
  GroupKey key;
  Listener listener;                        // kept, to refuse and count late comers
  std::vector<UniqueFd> control;            // by rank; our own is invalid
  std::vector<std::vector<UniqueFd>> data;  // by rank, then lane; invalid where memory is shared
  std::vector<int> pids;                    // by rank; 0 when on another host
  std::shared_ptr<SharedSegment> segment;   // null when alone on this host, or by choice
  std::vector<int> local_ranks;             // those in the segment, ascending, ourselves included
};

// kInvalidArgument for a bad spec; kPermissionDenied when refused; kAborted naming a rank that died
// meanwhile, or cannot be reached; kDeadlineExceeded naming the ranks that did not come.
// `members`: group.members, decoded. Of the options it obeys link_timeout and unreachable.
Result<JoinedGroup> Rendezvous(Listener listener, const GroupSpec& group,
                               const std::vector<MemberAddress>& members, TransportChoice transport,
                               const Options& options, Deadline deadline);

}  // namespace lepton::collectives
