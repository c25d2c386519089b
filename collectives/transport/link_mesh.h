// A mesh of links: the native back-end's.
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
  // links[our own rank] is null.
  LinkMesh(std::vector<std::unique_ptr<Link>> links, std::shared_ptr<Failure> failure,
           Waiter waiter)
      : links_(std::move(links)), failure_(std::move(failure)), waiter_(std::move(waiter)) {}

  Status Run(std::span<Transfer> transfers, Deadline deadline) override;
  // Of some ranks all fits in a core's caches.
  size_t part_bytes() const override { return size_t{256} << 10; }
  void SetPatient(bool patient) override { waiter_.SetPatient(patient); }

 private:
  Result<bool> Progress(std::span<Transfer> transfers);  // true if anything moved
  Status Sleep(std::span<Transfer> transfers, Deadline deadline);

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
