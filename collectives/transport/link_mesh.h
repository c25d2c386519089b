// A mesh of links: the native back-end's. To a peer there are one or several (lanes.h).
#pragma once

#include <memory>
#include <vector>

#include "collectives/failure.h"
#include "collectives/transport/link.h"
#include "collectives/transport/mesh.h"
#include "collectives/transport/waiter.h"

namespace lepton::collectives {

class LinkMesh final : public Mesh {
 public:
  // By rank, then lane: both ends of a pair have as many, in the same order; none to ourselves.
  // `blind`: who sleeps is woken by links alone and not by the failure, what
  // bench/promises_bench.cc compares with.
  LinkMesh(std::vector<std::vector<std::unique_ptr<Link>>> links, std::shared_ptr<Failure> failure,
           Waiter waiter, bool blind = false);

  Status Run(std::span<Transfer> transfers, Deadline deadline) override;
  // For each lane. Of some ranks all fits in a core's caches; where there are several lanes, a
  // step's latency counts more than where it is read.
  size_t part_bytes() const override { return most_lanes_ * (size_t{256} << 10); }
  void SetPatient(bool patient) override { waiter_.SetPatient(patient); }
  std::vector<LinkLook> LookAtLinks() const override;

 private:
  struct Lane {
    std::unique_ptr<Link> link;
    // By direction, the newest look that met a transfer which has not ended: those behind it wait.
    uint64_t taken_in[2] = {0, 0};
  };
  Status Drive(std::span<Transfer> transfers, Deadline deadline);
  Result<bool> Progress(std::span<Transfer> transfers);  // true if anything moved
  Status Sleep(std::span<Transfer> transfers, Deadline deadline);

  std::vector<std::vector<Lane>> lanes_;  // by rank
  size_t most_lanes_ = 1;                 // to a peer: the same on all ranks
  std::vector<Transfer> dealt_;           // one for each stretch of a transfer
  uint64_t look_ = 0;
  std::shared_ptr<Failure> failure_;
  std::vector<pollfd> alarm_;  // of the failure: what a sleep is ended by besides links
  Waiter waiter_;
  std::vector<pollfd> poll_;
};

// The error of an operation that waited for `peer`: kUnavailable becomes kAborted, and the peer is
// named. A dead peer's closed connection is often seen before the watcher reads why: waits a moment
// for the better message.
Status NamePeer(const Failure& failure, int peer, const Status& error);

}  // namespace lepton::collectives
