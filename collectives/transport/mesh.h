// All links of one rank, and the only place that moves bytes over them.
// Threads: one caller at a time.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "collectives/failure.h"
#include "collectives/transport/link.h"
#include "collectives/transport/waiter.h"

namespace lepton::collectives {

// One direction of traffic with one peer.
struct Transfer {
  int peer;
  bool send;
  void* data;  // only read when sending
  size_t bytes;
  size_t done = 0;

  static Transfer Send(int peer, const void* data, size_t bytes) {
    return {peer, true, const_cast<void*>(data), bytes};
  }
  static Transfer Recv(int peer, void* data, size_t bytes) { return {peer, false, data, bytes}; }
};

class Mesh {
 public:
  // links[rank] is null.
  Mesh(int rank, std::vector<std::unique_ptr<Link>> links, std::shared_ptr<Failure> failure,
       Waiter waiter)
      : rank_(rank),
        links_(std::move(links)),
        failure_(std::move(failure)),
        waiter_(std::move(waiter)) {}

  int rank() const { return rank_; }
  int size() const { return static_cast<int>(links_.size()); }
  const Link& link(int peer) const { return *links_[peer]; }

  // Drives all transfers together until all are complete; at most one per peer and direction.
  // The group's failure; kAborted naming the peer that is gone; kDeadlineExceeded naming the peers
  // that did not answer. After an error how much has moved is unspecified.
  Status Run(std::span<Transfer> transfers, Deadline deadline);

 private:
  Result<bool> Progress(std::span<Transfer> transfers);  // true if anything moved
  Status PeerError(int peer, const Status& error) const;
  Status Sleep(std::span<Transfer> transfers, Deadline deadline);

  int rank_;
  std::vector<std::unique_ptr<Link>> links_;
  std::shared_ptr<Failure> failure_;
  Waiter waiter_;
  std::vector<pollfd> poll_;
};

// The error of an operation that waited for `peer`: kUnavailable becomes kAborted, and the peer is
// named. A dead peer's closed connection is often seen before the watcher reads why: waits a moment
// for the better message.
Status NamePeer(const Failure& failure, int peer, const Status& error);

}  // namespace lepton::collectives
